"""The shortest time of a step: by hand, for a device that reads 1 GB and computes 1 TFLOP a second."""

from __future__ import annotations

import pytest

from albireo.models import TINY
from bench.throughput.step_limit import DeviceLimits
from worker_svc.cost.shape import ModelShape
from worker_svc.cost.work import StepWork
from worker_svc.model.config import ModelConfig

LIMITS = DeviceLimits(read=0.8e9, copy=1e9, operations=1e12)
SHAPE = ModelShape(ModelConfig.from_dir(TINY), tp=1)
MATRICES = SHAPE.layer_parameters + SHAPE.head_parameters


def test_a_step_of_one_row_reads_the_weights_and_its_kv() -> None:
    seconds, bound = LIMITS.of_step(SHAPE, StepWork(decodes=1, context=100, greedy=1))
    assert bound == "memory"
    assert seconds == pytest.approx((2 * MATRICES + 100 * SHAPE.kv_token_bytes) / 1e9)


def test_a_prefill_multiplies() -> None:
    pairs = 4096 * 4097 // 2
    seconds, bound = LIMITS.of_step(SHAPE, StepWork(prefill=4096, prefill_pairs=pairs, greedy=1))
    assert bound == "multiplications"
    products = SHAPE.layer_parameters * 4096 + SHAPE.head_parameters
    assert seconds == pytest.approx((2 * products + pairs * SHAPE.pair_operations) / 1e12)


def test_a_step_that_samples_nothing_needs_no_head() -> None:
    seconds, _ = LIMITS.of_step(SHAPE, StepWork(prefill=1, prefill_pairs=1))
    assert seconds == pytest.approx(2 * SHAPE.layer_parameters / 1e9)
