"""One frame of ``albireo top``, made from a view alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from albireo.telemetry.step_times import TASKS
from albireo.tools.top.collector import View
from albireo.tools.top.groups import groups_table
from albireo.tools.top.recent import WINDOW_SECONDS, Figures
from albireo.tools.top.tiers import tiers_table
from albireo.v1 import control_pb2 as control

SIDE_BY_SIDE = 100
"""Columns from which the panels of load and steps are next to each other."""
WITH_P99 = 46
"""Columns of the steps' panel from which it shows p99."""
SHORT_WAIT = 0.05
"""Seconds of waiting for a slot that are not worth a word."""
TENANTS = 4
"""Most tenants with waiting requests that are named."""
SPARKS, ASCII_SPARKS = "▁▂▃▄▅▆▇█", "_.:-=+*#"
BAR, ASCII_BAR = ("█", "░"), ("#", ".")


class Screen:
    """A renderable of a view, as wide as the console."""

    def __init__(self, view: View) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        view, width, plain = self._view, options.max_width, options.ascii_only
        side_by_side = width >= SIDE_BY_SIDE
        inner = (width // 2 if side_by_side else width) - 4
        panels: list[RenderableType] = [
            Panel(_load(view, inner, plain), title="load", padding=(0, 1)),
            Panel(_steps(view.steps, inner), title=f"steps of {WINDOW_SECONDS:g} s", padding=(0, 1)),
        ]
        yield _head(view)
        if side_by_side:
            grid = Table.grid(expand=True)
            grid.add_column(ratio=1)
            grid.add_column(ratio=1)
            grid.add_row(*panels)
            yield grid
        else:
            yield Group(*panels)
        if view.load is not None and view.load.groups:
            table = groups_table(view.load.groups, view.steps.group_tokens, width - 4)
            yield Panel(table, title="groups", padding=(0, 1))
            if any(group.tiers for group in view.load.groups):
                tiers = tiers_table(view.load.groups, view.tier_rates, view.steps, width - 4)
                yield Panel(tiers, title="KV tiers, in blocks", padding=(0, 1))
        yield Panel(_throughput(view.steps, width - 4, plain), title="tokens/s", padding=(0, 1))


def _head(view: View) -> RenderableType:
    lines = Text()
    model, load = view.model, view.load
    if model is not None:
        lines.append(model.model, style="bold")
        lines.append(f"  {model.architecture}, tp {model.tp}, {model.device}, {model.dtype}")
        if model.device == "sim":
            lines.append("  SIMULATED", style="bold yellow")
        lines.append("\n")
    if load is not None:
        count = len(load.groups)
        lines.append(f"epoch {load.epoch}, ")
        lines.append(
            f"{count} group{'s' * (count > 1)}" if count else "no group", style="green" if count else "red"
        )
        if abs(load.wait_seconds) >= SHORT_WAIT:
            wait = f"{load.wait_seconds:.1f} s" if load.wait_seconds > 0 else "not known"
            lines.append(f", expected wait for a slot {wait}")
        if load.integrity_violations:
            found = len(load.integrity_violations)
            lines.append(f", {found} integrity violations: {load.integrity_violations[0]}", style="bold red")
        lines.append("\n")
    if view.problem:
        lines.append(f"unavailable: {view.problem}\n", style="bold red")
    lines.rstrip()
    if not lines:
        lines.append("connecting")
    version = f" {view.server.version}" if view.server is not None else ""
    title = Text(f"albireo{version} at {view.target}")  # not markup: an address may have square brackets
    return Panel(lines, title=title, padding=(0, 1))


def _load(view: View, width: int, plain: bool) -> RenderableType:
    load, max_queue = view.load, view.server.max_queue if view.server is not None else 0
    if load is None:
        return Text("--", style="dim")
    used = load.blocks_total - load.blocks_free
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, justify="right")
    for label, part, whole, color in (
        ("waiting", load.waiting, max_queue, "yellow"),
        ("running", load.slots_total - load.slots_free, load.slots_total, "green"),
        ("KV used", used, load.blocks_total, "cyan"),
        ("KV cached", load.blocks_cached, load.blocks_total, "blue"),
    ):
        bar = Text(_bar(part, whole, max(4, width - 28), plain), style=color)
        grid.add_row(label, bar, f"{part} / {whole}")
    return Group(grid, Text(_totals(load)))


def _totals(load: control.Load) -> str:
    hits = f"{load.prefix_hit_tokens / load.prompt_tokens:.0%}" if load.prompt_tokens else "--"
    tenants = sorted(load.waiting_by_tenant.items(), key=lambda found: -found[1])
    waiting = ", ".join(f"{tenant} {count}" for tenant, count in tenants[:TENANTS])
    most = f"waiting most: {waiting}\n" if len(tenants) > 1 else ""
    return (
        f"{most}{load.steps_in_flight} steps in flight\nsince the epoch began: prefix hits {hits} of "
        f"{load.prompt_tokens} prompt tokens, {load.preemptions} preemptions, {load.wasted_rows} wasted rows"
    )


def _steps(steps: Figures, width: int) -> RenderableType:
    p99 = width >= WITH_P99
    table = Table("ms, median / p99" if p99 else "ms, median", box=None, padding=(0, 1), pad_edge=False)
    table.add_column("full", justify="right", no_wrap=True)
    table.add_column("visible", justify="right", no_wrap=True)
    for label, full, visible in TASKS:
        table.add_row(label, _cell(steps.times, full, p99), _cell(steps.times, visible, p99))
    table.add_row("T1 + T2 + T5", "", _cell(steps.times, "visible", p99), style="bold")
    table.add_row("period", _cell(steps.times, "period", p99), "", style="bold")
    table.add_row("plan age", _cell(steps.times, "plan_age", p99), "")
    line = (
        f"{steps.steps:.1f} steps/s, batch {steps.rows:g}, look-ahead {steps.look_ahead}, "
        f"{steps.wasted_rows} wasted rows"
    )
    return Group(Text(line), table)


def _cell(times: Mapping[str, Mapping[str, float]], name: str, p99: bool) -> str:
    if not times:
        return "--"
    found = times[name]
    return f"{found['median'] * 1e3:.2f}" + (f" / {found['p99'] * 1e3:.2f}" if p99 else "")


def _throughput(steps: Figures, width: int, plain: bool) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    for _ in range(2):
        grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    for label, rate, history, color in (
        ("output", steps.output_tokens, steps.output_history, "green"),
        ("prefill", steps.prefill_tokens, steps.prefill_history, "magenta"),
    ):
        sparks = sparkline(history[-max(1, width - 20) :], plain)
        grid.add_row(label, Text(f"{rate:.0f}".rjust(7), style="bold"), Text(sparks, style=color))
    return grid


def sparkline(values: Sequence[float], plain: bool = False) -> str:
    """A character a value, its height relative to the largest. ``plain``: in ASCII."""
    levels, most = ASCII_SPARKS if plain else SPARKS, max(values, default=0.0)
    if most <= 0:
        return levels[0] * len(values)
    return "".join(levels[min(len(levels) - 1, int(len(levels) * value / most))] for value in values)


def _bar(part: int, whole: int, width: int, plain: bool) -> str:
    """At least one full cell where ``part`` is not 0; all cells only where it is ``whole``."""
    full, empty = ASCII_BAR if plain else BAR
    cells = min(width, -(-part * width // whole)) if whole else 0
    if cells == width and part < whole:
        cells -= 1
    return full * cells + empty * (width - cells)
