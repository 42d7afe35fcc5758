"""How many KV blocks a described device holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker_svc.cost.shapes import QWEN_32B
from worker_svc.cost.device import Device
from worker_svc.cost.memory import activation_bytes, kv_blocks
from worker_svc.cost.shape import ModelShape

H100 = Device.load("h100")


@given(max_seqs=st.integers(1, 1024), max_step_tokens=st.integers(1, 16_384))
def test_more_ranks_hold_more_blocks(max_seqs: int, max_step_tokens: int) -> None:
    blocks = [
        kv_blocks(H100, QWEN_32B, tp, max_seqs=max_seqs, max_step_tokens=max_step_tokens) for tp in (2, 4, 8)
    ]
    assert blocks == sorted(set(blocks))


@given(max_seqs=st.integers(1, 1024), more=st.integers(0, 1024), tokens=st.integers(1, 16_384))
def test_larger_steps_leave_no_more_blocks(max_seqs: int, more: int, tokens: int) -> None:
    few, many = (
        kv_blocks(H100, QWEN_32B, 2, max_seqs=rows, max_step_tokens=count)
        for rows, count in ((max_seqs, tokens), (max_seqs + more, tokens + more))
    )
    assert many <= few


def test_weights_activations_and_blocks_fill_the_share() -> None:
    blocks = kv_blocks(H100, QWEN_32B, 4, max_seqs=256, max_step_tokens=2048, gpu_memory_share=0.8)
    shape = ModelShape(QWEN_32B, 4)
    block = shape.kv_token_bytes * 16 * (64 + 2) / 64  # two of 64 layers stay free for copies
    used = shape.weight_bytes + activation_bytes(shape, max_seqs=256, max_step_tokens=2048) + blocks * block
    granted = (0.8 * H100.memory_gib - H100.reserved_gib) * 2**30
    assert granted - block < used <= granted


def test_a_model_that_does_not_fit_is_refused_with_its_size() -> None:
    l40s = Device.load("l40s")
    with pytest.raises(ValueError, match=r"weights 65\.5 GB over 1 device of 48\.3 GB \(l40s\)"):
        kv_blocks(l40s, QWEN_32B, 1, max_seqs=64)
    with pytest.raises(ValueError, match="over 1 device of"):
        kv_blocks(H100, QWEN_32B, 1, max_seqs=64, gpu_memory_share=0.5)


def test_slots_that_leave_no_memory_are_told_apart_from_weights() -> None:
    with pytest.raises(ValueError, match=r"a step of 65536 slots needs 119\.6 GB"):
        kv_blocks(H100, QWEN_32B, 4, max_seqs=65_536)


def test_a_device_described_in_float32_holds_half_as_much() -> None:
    wide = H100.model_copy(
        update={"dtype": "float32", "memory_gib": 2 * H100.memory_gib, "reserved_gib": 0.0}
    )
    narrow = H100.model_copy(update={"reserved_gib": 0.0})
    as_wide, as_narrow = (kv_blocks(device, QWEN_32B, 4, max_seqs=64) for device in (wide, narrow))
    assert as_wide == pytest.approx(as_narrow, rel=0.01)
