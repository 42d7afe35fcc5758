"""The paper's figures against simulated ones: each with its error, and the errors summed up."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from bench.paper import data
from bench.paper.case import Case
from bench.paper.data import Mode, Row


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the paper, and the simulated one."""

    section: str
    what: str
    mode: str
    paper: float
    ours: float
    fitted: bool = False  # of the calibrated row: no prediction

    @property
    def error(self) -> float:
        return self.ours / self.paper - 1


@dataclass(frozen=True, slots=True)
class Summary:
    """Of the figures that are predictions. Errors are without sign."""

    figures: int
    median: float
    worst: Figure


def cases() -> list[Case]:
    """All that the figures need."""
    rows = [
        Case(row.model, row.tp, mode, data.IN_FLIGHT)
        for row in (*data.ROWS, *data.SCALING)
        for mode in row.throughput
    ]
    splits = [_split_case(split, mode) for split in data.SPLITS for mode in split.throughput]
    gains = [_gain_case(in_flight, mode) for in_flight in data.GAINS for mode in data.BOTH]
    return list(dict.fromkeys((*rows, *splits, *gains)))


def figures(found: Mapping[Case, float]) -> list[Figure]:
    """``found``: thousands of tokens per second of ``cases``."""
    return [
        *_rows("throughput", data.ROWS, found),
        *_ratios(found),
        *_rows("scaling", data.SCALING, found),
        *_splits(found),
        *_gains(found),
    ]


def summary(compared: Iterable[Figure]) -> Summary:
    predicted = [figure for figure in compared if not figure.fitted]
    errors = [abs(figure.error) for figure in predicted]
    worst = max(predicted, key=lambda figure: abs(figure.error))
    return Summary(len(predicted), statistics.median(errors), worst)


def split_totals(found: Mapping[Case, float], mode: Mode) -> dict[str, tuple[float, float]]:
    """Of each split of four devices: the paper's throughput, and ours."""
    return {
        split.name: (split.throughput[mode], split.groups * found[_split_case(split, mode)])
        for split in data.SPLITS
    }


def order(totals: Mapping[str, tuple[float, float]], whose: int) -> list[str]:
    """The splits from the best to the worst. ``whose``: 0 is the paper's order, 1 ours."""
    return sorted(totals, key=lambda name: -totals[name][whose])


def orders_agree(found: Mapping[Case, float]) -> bool:
    """In both modes."""
    every = [split_totals(found, mode) for mode in data.BOTH]
    return all(order(totals, 0) == order(totals, 1) for totals in every)


def _rows(section: str, rows: Iterable[Row], found: Mapping[Case, float]) -> Iterator[Figure]:
    for row in rows:
        for mode, paper in row.throughput.items():
            case = Case(row.model, row.tp, mode, data.IN_FLIGHT)
            if case == case.same:  # at t = 1 async only is full, in the paper too: one figure
                what = f"{row.model}, t = {row.tp}"
                yield Figure(section, what, mode, paper, found[case], _fitted(case))


def _ratios(found: Mapping[Case, float]) -> Iterator[Figure]:
    for row in data.ROWS:
        slow, fast = (Case(row.model, row.tp, mode, data.IN_FLIGHT) for mode in data.BOTH)
        paper = row.throughput[fast.mode] / row.throughput[slow.mode]
        what = f"{row.model}, t = {row.tp}"
        yield Figure("ratio", what, "full / synchronous", paper, found[fast] / found[slow], _fitted(fast))


def _splits(found: Mapping[Case, float]) -> Iterator[Figure]:
    for mode in data.BOTH:
        for split, (paper, ours) in zip(data.SPLITS, split_totals(found, mode).values(), strict=True):
            what, fitted = f"Qwen2.5-32B, {split.name}", _fitted(_split_case(split, mode))
            yield Figure("four devices", what, mode, paper, ours, fitted)


def _gains(found: Mapping[Case, float]) -> Iterator[Figure]:
    for in_flight, paper in data.GAINS.items():
        slow, fast = (_gain_case(in_flight, mode) for mode in data.BOTH)
        what = f"QwQ-32B, {in_flight} in flight"
        yield Figure("gain", what, "full / synchronous", paper, found[fast] / found[slow], _fitted(fast))


def _fitted(case: Case) -> bool:
    """Whether it is the calibrated row, wherever the paper has a figure of it."""
    row = data.CALIBRATED
    return (case.model, case.tp, case.in_flight) == (row.model, row.tp, data.IN_FLIGHT)


def _split_case(split: data.Split, mode: Mode) -> Case:
    """The requests in flight are shared out over the groups."""
    return Case("Qwen2.5-32B", split.tp, mode, data.IN_FLIGHT // split.groups)


def _gain_case(in_flight: int, mode: Mode) -> Case:
    """QwQ-32B has the same shape."""
    return Case("Qwen2.5-32B", 4, mode, in_flight)
