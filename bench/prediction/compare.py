"""Predicted against measured: plain data, and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rich.table import Table
from rich.text import Text

from bench.prediction.measure import Run


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a summary, and how far its prediction may be off."""

    label: str
    path: tuple[str, ...]  # keys of the summary
    bar: float | None  # largest |error|; None: shown to explain the others
    scale: float = 1.0  # to the unit of the label


FIGURES = (
    Figure("output tokens/s", ("output_tokens_per_second",), 0.10),
    Figure("TPOT P50, ms", ("tpot", "p50"), 0.10, 1e3),
    Figure("TTFT P99, ms", ("ttft", "p99"), 0.25, 1e3),
    Figure("TTFT P50, ms", ("ttft", "p50"), None, 1e3),
    Figure("steps", ("steps", "steps"), None),
    Figure("T3 a step, ms", ("steps", "t3"), None, 1e3),
    Figure("T4 a step, ms", ("steps", "t4"), None, 1e3),
    Figure("wait a step, ms", ("steps", "visible"), None, 1e3),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of one workload, in the unit of its label."""

    label: str
    calibrated: float  # mean of the simulations at the speed of the calibration
    predicted: float  # mean of the simulations at the speed of each round
    measured: tuple[float, ...]  # of each round
    bar: float | None

    @property
    def mean(self) -> float:
        return sum(self.measured) / len(self.measured)

    @property
    def noise(self) -> float:
        """How far the rounds are from each other, as a share of their mean."""
        return (max(self.measured) - min(self.measured)) / self.mean if self.mean else 0.0

    @property
    def error(self) -> float | None:
        """(predicted - measured) / measured."""
        return (self.predicted - self.mean) / self.mean if self.mean else None

    @property
    def within(self) -> bool | None:
        """Whether the error is within the bar; None without a bar."""
        if self.bar is None:
            return None
        return self.error is not None and abs(self.error) <= self.bar


def compare(
    calibrated: Sequence[dict[str, Any]], predicted: Sequence[dict[str, Any]], runs: Sequence[Run]
) -> list[Comparison]:
    """All figures of one workload. ``calibrated``, ``predicted``: summaries of simulations."""
    measured = [run.summary for run in runs]
    speeds = tuple(run.speed for run in runs)
    found = [Comparison("speed of the machine", 1.0, fmean(speeds), speeds, None)]
    found += [
        Comparison(
            figure.label,
            fmean(_of(figure, calibrated)),
            fmean(_of(figure, predicted)),
            _of(figure, measured),
            figure.bar,
        )
        for figure in FIGURES
    ]
    return found


def _of(figure: Figure, summaries: Sequence[dict[str, Any]]) -> tuple[float, ...]:
    """The figure in each summary, in the unit of its label."""
    return tuple(figure.scale * _at(summary, figure.path) for summary in summaries)


def _at(summary: dict[str, Any], path: tuple[str, ...]) -> float:
    found: Any = summary
    for key in path:
        found = found[key]
    return float(found)


def table(compared: dict[str, list[Comparison]], title: str, caption: str) -> Table:
    """``compared``: by the name of the case. Noise: how far the rounds are from each other."""
    columns = ("as calibrated", "simulated", "measured", "noise", "error", "at most")
    found = Table("workload", "", title=Text(title), caption=Text(caption))
    for column in columns:
        found.add_column(column, justify="right")
    for name, comparisons in compared.items():
        found.add_section()
        for number, one in enumerate(comparisons):
            error = "--" if one.error is None else f"{one.error:+.1%}"
            found.add_row(
                "" if number else name,
                one.label,
                f"{one.calibrated:.4g}",
                f"{one.predicted:.4g}",
                f"{one.mean:.4g}",
                f"{one.noise:.1%}" if len(one.measured) > 1 else "",
                Text(error, style="red" if one.within is False else ""),
                "" if one.bar is None else f"{one.bar:.0%}",
            )
    return found


def as_data(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    return [
        {
            "figure": one.label,
            "predicted_at_calibrated_speed": one.calibrated,
            "predicted": one.predicted,
            "measured": list(one.measured),
            "noise": one.noise,
            "error": one.error,
            "bar": one.bar,
            "within": one.within,
        }
        for one in comparisons
    ]
