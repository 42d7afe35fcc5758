"""Splits: every TP degree that divides the model and fits, with as many groups as there are devices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.models import TINY
from albireo.planning.choice.split import Split, fitting, legal_splits
from tests.albireo.planning.choice.models import write_model
from worker_svc.model.config import ModelConfig

TINY_CONFIG = ModelConfig.from_dir(TINY)


@given(st.integers(1, 16), st.integers(1, 8), st.integers(1, 64), st.integers(1, 24))
def test_a_split_is_legal_if_and_only_if_its_degree_divides_the_model_and_the_devices_suffice(
    kv_heads: int, queries: int, intermediate: int, devices: int
) -> None:
    config = replace(
        TINY_CONFIG, num_heads=kv_heads * queries, num_kv_heads=kv_heads, intermediate_size=intermediate
    )
    found = legal_splits(config, devices)
    assert [split.tp for split in found] == [
        tp for tp in range(1, devices + 1) if kv_heads % tp == 0 and intermediate % tp == 0
    ]
    for split in found:
        assert split.devices <= devices < split.devices + split.tp


def test_a_degree_that_is_no_power_of_two_is_a_split_too(tmp_path: Path) -> None:
    model = write_model(
        tmp_path,
        "Qwen2.5-32B-Instruct",
        num_attention_heads=42,
        num_key_value_heads=6,
        hidden_size=5376,
    )
    assert legal_splits(ModelConfig.from_dir(model), 8) == [
        Split(1, 8),
        Split(2, 4),
        Split(3, 2),
        Split(6, 1),
    ]
    assert str(Split(3, 2)) == "2x3"


def test_no_device_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        legal_splits(TINY_CONFIG, 0)


def device_alone(tp: int, blocks: int) -> int:
    return 16 * blocks


def test_what_does_not_fit_is_kept_with_the_reason() -> None:
    def blocks(tp: int) -> int:
        if tp == 1:
            raise ValueError("the weights are too large")
        return {2: 255, 4: 256}[tp]

    good, bad = fitting([Split(1, 4), Split(2, 2), Split(4, 1)], blocks, device_alone, max_model_len=4096)
    assert [(fit.split, fit.num_blocks) for fit in good] == [(Split(4, 1), 256)]
    assert [unfit.reason for unfit in bad] == [
        "the weights are too large",
        "KV memory for 4080 tokens, and one request may have 4096",
    ]


def test_a_model_that_fits_at_no_degree_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^the model fits at no TP degree; at 2: KV memory for 160 tokens"):
        fitting([Split(1, 2), Split(2, 1)], lambda tp: 5 * tp, device_alone, max_model_len=4096)


def test_a_request_may_be_longer_than_the_device_where_a_tier_holds_the_rest() -> None:
    good, bad = fitting(
        [Split(1, 2), Split(2, 1)], lambda tp: 10, lambda tp, _: 4000 * tp, max_model_len=8000
    )
    assert [(fit.split, fit.num_blocks) for fit in good] == [(Split(2, 1), 10)]
    assert [unfit.reason for unfit in bad] == ["KV memory for 4000 tokens, and one request may have 8000"]
