"""The groups in a frame of ``albireo top``: a line each. The screen draws it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from albireo.v1 import control_pb2 as control

COLUMNS = (
    ("group", 0),
    ("device", 70),
    ("running", 0),
    ("KV used", 90),
    ("tokens/s", 0),
    ("step ms", 60),
    ("ranks", 50),
    ("beat", 0),
)
"""Titles, and from how many columns of the terminal on each is shown."""
MOST_GROUPS = 16
"""Most groups that are shown: those with a silent rank first, else by name."""
SILENT_SECONDS = 1.0
"""From this age of its last heartbeat on a rank is red; it writes one four times a second."""


def groups_table(
    groups: Sequence[control.GroupLoad], rates: Mapping[str, float], width: int
) -> RenderableType:
    """``rates``: output tokens per second by the name of a group."""
    titles = [title for title, least in COLUMNS if width >= least]
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for title in titles:
        text = title in ("group", "device", "ranks")
        table.add_column(title, justify="left" if text else "right", no_wrap=not text, overflow="fold")
    for group in sorted(groups, key=_order)[:MOST_GROUPS]:
        cells = _cells(group, rates.get(group.name, 0.0))
        table.add_row(*[cells[title] for title in titles])
    more = len(groups) - MOST_GROUPS
    return Group(table, Text(f"and {more} more groups")) if more > 0 else table


def beat_seconds(group: control.GroupLoad) -> float:
    """Age of the oldest last heartbeat of its ranks."""
    return max((rank.beat_seconds for rank in group.ranks), default=0.0)


def _order(group: control.GroupLoad) -> tuple[bool, int, str]:
    return beat_seconds(group) < SILENT_SECONDS, len(group.name), group.name  # g2 before g10


def _cells(group: control.GroupLoad, rate: float) -> dict[str, RenderableType]:
    beat = beat_seconds(group)
    return {
        "group": Text(group.name),  # not markup
        "device": Text(f"{group.device}, tp {group.tp}"),
        "running": f"{group.running} / {group.slots_total}",
        "KV used": f"{group.blocks_total - group.blocks_free} / {group.blocks_total}",
        "tokens/s": f"{rate:.0f}",
        "step ms": f"{group.step_seconds * 1e3:.1f}" if group.step_seconds else "--",
        "ranks": Text(_stages(group.ranks)),
        "beat": Text(f"{beat:.1f} s", style="bold red" if beat >= SILENT_SECONDS else ""),
    }


def _stages(ranks: Sequence[control.Rank]) -> str:
    """What the ranks do; the longest time without progress where that is long."""
    counts = Counter(rank.stage for rank in ranks)
    found = ", ".join(f"{count} {stage}" for stage, count in sorted(counts.items()))
    stands = max((rank.seconds for rank in ranks if rank.stage != "waiting"), default=0.0)
    return f"{found} for {stands:.1f} s" if stands >= SILENT_SECONDS else found
