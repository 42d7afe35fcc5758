"""The outcome as tables of text: for the terminal, and for the document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bench.paper import comparison, data, missing
from bench.paper.comparison import Figure
from bench.paper.outcome import Outcome

TITLES = {
    "throughput": "Throughput, thousands of tokens per second",
    "ratio": "Ratio of the modes",
    "scaling": "Other TP degrees, thousands of tokens per second",
    "four devices": "Four devices, thousands of tokens per second of all groups",
    "gain": "Gain over requests in flight, at t = 4",
}


@dataclass(frozen=True, slots=True)
class TextTable:
    """The first ``texts`` columns are texts, the others numbers."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    texts: int = 1

    def rich(self) -> Table:
        table = Table(title=self.title, box=SIMPLE_HEAD, title_justify="left")
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="left" if number < self.texts else "right")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """Without the title."""
        rule = ["---" if number < self.texts else "--:" for number in range(len(self.columns))]
        lines = [self.columns, rule, *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def figures(outcome: Outcome, section: str) -> TextTable:
    rows = [
        (f.what, f.mode, f"{f.paper:.2f}", f"{f.ours:.2f}", "fitted" if f.fitted else percent(f.error))
        for f in outcome.figures
        if f.section == section
    ]
    return TextTable(TITLES[section], ("", "mode", "paper", "simulated", "error"), rows, texts=2)


def errors(outcome: Outcome) -> TextTable:
    """Median and worst, by section and of all."""

    def row(name: str, of: list[Figure]) -> tuple[str, ...]:
        summary = comparison.summary(of)
        worst = summary.worst
        where = f"{worst.what}, {worst.mode}"
        return name, where, str(summary.figures), f"{100 * summary.median:.1f} %", percent(worst.error)

    sections = [row(name, [f for f in outcome.figures if f.section == name]) for name in TITLES]
    columns = ("figures", "worst at", "predicted", "median error", "worst error")
    return TextTable("Errors", columns, [*sections, row("all", outcome.figures)], texts=2)


def degrees(outcome: Outcome) -> TextTable:
    rows = [
        (
            found.claim.model,
            found.mode,
            str(found.paper),
            _marked(found.by_groups, found.paper),
            _marked(found.by_devices, found.paper) if found.claim.stated else str(found.by_devices),
            f"T({found.claim.t_e['full']}) / T({found.claim.t_e['full'] // 2}) = {found.ratio:.2f}",
        )
        for found in outcome.degrees
    ]
    columns = ("model", "mode", "paper", "by groups", "by devices", "simulated ratio")
    return TextTable("The optimal TP degree t_e", columns, rows, texts=2)


def orders(outcome: Outcome) -> TextTable:
    rows = []
    for mode in data.BOTH:
        totals = comparison.split_totals(outcome.throughput, mode)
        rows.append((mode, *(" > ".join(comparison.order(totals, whose)) for whose in (0, 1))))
    return TextTable("Order of the splits of four devices", ("mode", "paper", "simulated"), rows, texts=3)


def effects(outcome: Outcome) -> TextTable:
    stated = sum(found.claim.stated for found in outcome.degrees)
    rows = [
        (
            effect.what,
            effect.worst_at,
            f"{100 * effect.median:.1f} %",
            f"{100 * effect.worst:.1f} %",
            f"{effect.by_groups} of {len(outcome.degrees)}",
            f"{effect.by_devices} of {stated}",
        )
        for effect in outcome.effects
    ]
    columns = ("choice", "worst at", "median error", "worst error", "t_e by groups", "by devices")
    return TextTable("Other choices, estimated from the mean step", columns, rows, texts=2)


def hosts() -> TextTable:
    rows = [(f"{row.model}, t = {row.tp}", f"{missing.host_ms(row):.1f}") for row in data.ROWS]
    return TextTable("Host time that overlap hides, by the paper's own figures", ("row", "ms a step"), rows)


def all_tables(outcome: Outcome) -> Iterator[TextTable]:
    for section in TITLES:
        yield figures(outcome, section)
    yield from (make(outcome) for make in _OTHERS)
    yield hosts()


_OTHERS: tuple[Callable[[Outcome], TextTable], ...] = (orders, degrees, errors, effects)


def percent(share: float) -> str:
    return f"{100 * share:+.1f} %"


def _marked(ours: int, paper: int) -> str:
    return str(ours) if ours == paper else f"{ours} (!)"
