"""The paper's figures agree with each other, as far as they say the same twice."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from bench.paper import data
from bench.paper.case import Case
from bench.paper.comparison import figures
from bench.paper.models import MODELS
from worker_svc.cost.shape import ModelShape

RATIOS = {
    "Llama2-7B": 1.31,
    "Qwen2.5-7B": 1.28,
    "Llama2-13B": 1.36,
    "Qwen2.5-14B": 1.46,
    "Qwen2.5-32B": 1.69,
    "Llama3.1-70B": 1.76,
    "Qwen2.5-72B": 1.93,
}
"""Full to synchronous, a column of its own in the paper's table."""
BILLIONS = {
    "Llama2-7B": 6.74,
    "Qwen2.5-7B": 7.62,
    "Llama2-13B": 13.02,
    "Qwen2.5-14B": 14.77,
    "Qwen2.5-32B": 32.76,
    "Llama3.1-70B": 70.55,
    "Qwen2.5-72B": 72.71,
}
"""Parameters, by the models' cards."""


@pytest.mark.parametrize("row", data.ROWS, ids=lambda row: row.model)
def test_throughput_of_both_modes_gives_the_ratio_of_the_table(row: data.Row) -> None:
    assert row.throughput["full"] / row.throughput["synchronous"] == pytest.approx(
        RATIOS[row.model], rel=0.01
    )


@pytest.mark.parametrize("row", data.ROWS, ids=lambda row: row.model)
def test_throughput_times_tpot_is_the_number_of_requests_in_flight(row: data.Row) -> None:
    assert row.tpot_ms is not None
    for mode, tpot in zip(data.BOTH, row.tpot_ms, strict=True):
        assert row.throughput[mode] * tpot == pytest.approx(data.IN_FLIGHT, rel=0.03)


def test_four_devices_in_one_group_are_the_calibrated_row() -> None:
    split = next(split for split in data.SPLITS if split.groups == 1)
    for mode, throughput in split.throughput.items():
        assert throughput == pytest.approx(data.CALIBRATED.throughput[mode], rel=0.07)


@pytest.mark.parametrize("model", MODELS)
def test_a_shape_has_the_parameters_of_its_model(model: str) -> None:
    assert ModelShape(MODELS[model], 1).weight_bytes / 2e9 == pytest.approx(BILLIONS[model], rel=0.005)


def test_the_papers_own_figures_have_no_error(paper_itself: Mapping[Case, float]) -> None:
    compared = figures(paper_itself)
    assert {figure.section for figure in compared} == {
        "throughput",
        "ratio",
        "scaling",
        "four devices",
        "gain",
    }
    # The gains are of another model, and one split was measured a second time.
    same = [f for f in compared if f.section not in ("gain", "four devices")]
    assert [f.what for f in same if f.error != pytest.approx(0.0, abs=1e-9)] == []
