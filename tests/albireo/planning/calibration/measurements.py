"""Steps as a group would have measured them whose costs are known."""

from __future__ import annotations

import numpy as np

from albireo.models import TINY
from albireo.planning.calibration.steps import MeasuredStep
from worker_svc.cost.device import Device, Efficiency, HostPart, HostTimes, Link, RowCost, SamplingCost
from worker_svc.cost.physical import PhysicalCost
from worker_svc.cost.work import StepWork
from worker_svc.model.config import ModelConfig

CONFIG = ModelConfig.from_dir(TINY)
DEVICE = Device(
    name="synthetic",
    source="test",
    memory_gib=8,
    gb_per_second=1.0,
    tflops=0.001,
    link=Link(name="synthetic", gb_per_second=1.0),
    efficiency=(
        Efficiency(weights=0.7, kv=0.2, compute=0.6, attention=0.1, overlap=1.5, layer_us=60, step_us=500),
        Efficiency(
            tp=2,
            weights=0.4,
            kv=0.1,
            compute=0.25,
            attention=0.06,
            overlap=1.5,
            layer_us=70,
            step_us=600,
            all_reduce_us=40,
            link=0.5,
        ),
    ),
    sampling=(
        SamplingCost(
            fixed_us=300,
            driver_us=250,
            parallel_us=400,
            link=3.0,
            greedy=RowCost(logit_ns=10),
            drawn=RowCost(fixed_us=700, logit_ns=40),
            penalized=RowCost(fixed_us=900, logit_ns=90),
        ),
    ),
    host=(
        HostTimes(
            t1=HostPart(fixed_us=300, row_us=4, prefill_token_us=0.2),
            t2=HostPart(fixed_us=900, row_us=2, prefill_token_us=0.5),
            t5=HostPart(fixed_us=400, row_us=9),
        ),
    ),
)


def works() -> list[StepWork]:
    """Decoding rows from short and long contexts, chunks with and without context, both, and sampling."""
    kinds = ((1, 0, 0), (0, 1, 0), (0, 0, 1))  # greedy, drawn, penalized
    found = [
        StepWork(rows, rows * context, 0, 0, kind[0] * rows, kind[1] * rows, kind[2] * rows)
        for rows in (1, 2, 4, 8, 16, 32, 64)
        for context in (40, 900)
        for kind in kinds
    ]
    found += [
        StepWork(prefill=chunk, prefill_pairs=chunk * (before + chunk // 2), greedy=1)
        for chunk in (16, 64, 256, 512)
        for before in (0, 512, 1024)
    ]
    found += [
        StepWork(
            decodes=rows, context=300 * rows, prefill=chunk, prefill_pairs=chunk**2 // 2, greedy=rows + 1
        )
        for rows in (4, 32)
        for chunk in (30, 300)
    ]
    return found


def measured(
    tp: int, *, noise: float, repeats: int = 5, outliers: float = 0.0, seed: int = 0
) -> list[MeasuredStep]:
    """Steps of ``DEVICE``: log-normal ``noise``; a share of ``outliers`` takes five times as long."""
    draw = np.random.default_rng(seed)
    cost = PhysicalCost(DEVICE, CONFIG, tp)

    def noisy(seconds: float) -> float:
        late = 5.0 if draw.random() < outliers else 1.0
        return float(seconds * late * np.exp(noise * draw.standard_normal()))

    return [
        MeasuredStep(
            load="synthetic",
            at=0.0,
            work=work,
            parallel=parallel,
            t1=noisy(cost.host(work).t1),
            t2=noisy(cost.host(work).t2),
            t3=noisy(cost.forward_seconds(work) - cost.efficiency.step_us * 1e-6),
            t4=noisy(cost.sampling_seconds(work, parallel=parallel)),
            t5=noisy(cost.host(work).t5),
            gap=noisy(cost.efficiency.step_us * 1e-6),
        )
        for work in works()
        for parallel in ((False, True) if tp > 1 else (False,))
        for _ in range(repeats)
    ]
