"""The KV tiers in a frame of ``albireo top``: a line each. The screen draws it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from albireo.tools.top.recent import Figures
from albireo.tools.top.tier_rates import Blocks, Key
from albireo.v1 import control_pb2 as control

COLUMNS = (
    ("group", 0),
    ("KV tier", 0),
    ("frames used", 0),
    ("fetched/s", 50),
    ("spilled/s", 60),
    ("streamed", 100),
    ("hit tokens", 76),
    ("failed", 84),
    ("lost", 92),
    ("waits", 46),
)
"""Titles, and from how many columns of the terminal on each is shown. ``waits``: share of the time in which
layers of the group wait for KV from any tier. ``streamed``: what they read, and for how many requests
that are too long for the blocks of the device."""
MOST_TIERS = 16
"""Most tiers that are shown: those of the groups that wait the longest first."""


def tiers_table(
    groups: Iterable[control.GroupLoad], rates: Mapping[Key, Blocks], steps: Figures, width: int
) -> RenderableType:
    """``rates``: blocks per second. ``steps``: the recent ones."""
    waits = steps.group_waits
    titles = [title for title, least in COLUMNS if width >= least]
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for title in titles:
        text = title in ("group", "KV tier")
        table.add_column(title, justify="left" if text else "right", no_wrap=not text, overflow="fold")
    ordered = sorted(groups, key=lambda group: (-waits.get(group.name, 0.0), len(group.name), group.name))
    tiers = [(group, tier) for group in ordered for tier in group.tiers]
    for group, tier in tiers[:MOST_TIERS]:
        cells = _cells(group, tier, rates.get((group.incarnation, tier.name)), steps)
        table.add_row(*[cells[title] for title in titles])
    more = len(tiers) - MOST_TIERS
    return Group(table, Text(f"and {more} more tiers")) if more > 0 else table


def _cells(
    group: control.GroupLoad, tier: control.TierLoad, rate: Blocks | None, steps: Figures
) -> dict[str, RenderableType]:
    megabytes = steps.streamed.get((group.name, tier.name), 0.0) / 1e6
    return {
        "group": Text(group.name),  # not markup
        "KV tier": Text(tier.name),
        "frames used": f"{tier.frames_used} / {tier.frames_total}",
        "fetched/s": f"{rate.fetched:.0f}" if rate is not None else "--",
        "spilled/s": f"{rate.spilled:.0f}" if rate is not None else "--",
        "streamed": f"{megabytes:.0f} MB/s for {group.streamed}" if megabytes or group.streamed else "--",
        "hit tokens": str(tier.prefix_hit_tokens),
        "failed": str(tier.fetches_failed),
        "lost": str(tier.frames_lost),
        "waits": f"{steps.group_waits.get(group.name, 0.0):.1%}",
    }
