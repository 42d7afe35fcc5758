"""The bars of the comparison, estimated from the mean step. ``python -m bench.paper`` simulates it."""

from __future__ import annotations

import pytest

from bench.paper.comparison import Figure, orders_agree, split_totals, summary
from bench.paper.outcome import Outcome

MEDIAN, WORST = 0.10, 0.25


def test_all_predicted_figures_are_within_the_bars(outcome: Outcome) -> None:
    assert outcome.summary.figures == 39
    assert outcome.summary.median <= MEDIAN
    assert abs(outcome.summary.worst.error) <= WORST, outcome.summary.worst


def test_the_calibrated_row_is_no_prediction_wherever_the_paper_has_it(outcome: Outcome) -> None:
    fitted = {(f.section, f.what, f.mode) for f in outcome.figures if f.fitted}
    assert len(fitted) == 7
    assert {("four devices", "Qwen2.5-32B, 1x4", mode) for mode in ("synchronous", "full")} <= fitted


def test_no_figure_is_counted_twice(outcome: Outcome) -> None:
    single = [f.mode for f in outcome.figures if (f.section, f.what) == ("throughput", "Llama2-7B, t = 1")]
    assert single == ["synchronous", "full"]


def test_four_devices_are_split_in_the_papers_order(outcome: Outcome) -> None:
    assert orders_agree(outcome.throughput)


def test_an_order_that_differs_is_seen(outcome: Outcome) -> None:
    totals = split_totals(outcome.throughput, "full")
    assert max(totals, key=lambda name: totals[name][1]) == "1x4"
    worse = {case: value * (0.5 if case.tp == 4 else 1.0) for case, value in outcome.throughput.items()}
    assert not orders_agree(worse)


def test_what_is_fitted_does_not_count_as_predicted() -> None:
    found = summary(
        [
            Figure("s", "fitted", "full", 1.0, 1.0, fitted=True),
            Figure("s", "low", "full", 1.0, 0.7),
            Figure("s", "high", "full", 1.0, 1.1),
        ]
    )
    assert (found.figures, found.worst.what) == (2, "low")
    assert found.median == pytest.approx(0.2)
