"""Predicted against measured figures."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rich.console import Console

from bench.prediction.compare import Comparison, as_data, compare, table
from bench.prediction.measure import Run


def summary(rate: float, tpot: float, ttft: float) -> dict[str, Any]:
    return {
        "output_tokens_per_second": rate,
        "tpot": {"p50": tpot},
        "ttft": {"p50": ttft, "p99": ttft},
        "steps": {"steps": 10, "t3": 0.02, "t4": 0.001, "visible": 0.0},
    }


def by_label(comparisons: list[Comparison]) -> dict[str, Comparison]:
    return {one.label: one for one in comparisons}


def test_the_error_is_of_the_mean_of_the_simulations_relative_to_the_mean_of_the_rounds() -> None:
    simulated = [summary(100, 0.02, 0.4), summary(120, 0.02, 0.6)]
    runs = [Run(summary(90, 0.02, 0.4), 0.9), Run(summary(110, 0.02, 0.4), 1.1)]
    found = by_label(compare([summary(50, 0.02, 0.4)], simulated, runs))
    rate = found["output tokens/s"]
    assert (rate.calibrated, rate.predicted, rate.measured, rate.mean) == (50, 110, (90, 110), 100)
    assert found["speed of the machine"].measured == (0.9, 1.1)
    assert rate.error == pytest.approx(0.1)
    assert rate.noise == pytest.approx(0.2)
    assert found["TPOT P50, ms"].predicted == pytest.approx(20)
    assert found["TTFT P99, ms"].error == pytest.approx(0.25)


@pytest.mark.parametrize(("predicted", "within"), [(109, True), (91, True), (112, False), (88, False)])
def test_an_error_is_within_its_bar_in_both_directions(predicted: float, within: bool) -> None:
    assert Comparison("rate", 100, predicted, (100.0,), 0.1).within is within


def test_a_figure_without_a_bar_is_neither_within_nor_above() -> None:
    assert Comparison("steps", 500, 500, (100.0,), None).within is None


def test_nothing_measured_is_no_success() -> None:
    nothing = Comparison("rate", 5, 5, (0.0, 0.0), 0.1)
    assert (nothing.error, nothing.within, nothing.noise) == (None, False, 0)


def test_the_table_shows_both_the_error_and_the_bar() -> None:
    compared = {
        "steady": compare(
            [summary(70, 0.02, 0.5)], [summary(80, 0.02, 0.5)], [Run(summary(100, 0.02, 0.5), 0.9)]
        )
    }
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table(compared, "[title]", "machine"))
    for part in ("[title]", "machine", "steady", "70", "80", "100", "-20.0%", "10%", "TTFT P99, ms", "25%"):
        assert part in capture.get()
    json.dumps(as_data(compared["steady"]))
