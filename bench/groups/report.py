"""The figures of a run with deaths: which streams were wrong, lost or moved, and how long they paused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from bench.groups.deaths import Death
from bench.groups.measure import Found
from bench.machine import machine
from bench.streams import Received


def summarize(found: Found) -> dict[str, Any]:
    """Plain data. Gaps are between two messages of one stream, in seconds; those of streams whose group died
    and of streams on other groups are the longest of each stream that contain the death or begin within two
    seconds of it."""
    reference = {received.number: received.ids for received in found.reference}
    good = [received for received in found.streams if not received.error]
    moved = [name for name, moves in found.groups.items() if len({group for _, group in moves}) > 1]
    hit: list[float] = []
    others: list[float] = []
    for death in found.deaths:
        for received in found.streams:
            where = _group_at(found.groups[received.request_id], death.at)
            gap = _gap_at(received, death)
            if where is not None and gap is not None:
                (hit if where == death.incarnation else others).append(gap)
    return {
        "machine": machine(),
        "deaths": len(found.deaths),
        "streams": len(found.streams),
        "errors": sorted({received.error for received in [*found.reference, *found.streams]} - {""}),
        "lost": sum(bool(received.error) for received in found.streams),
        "differing": sum(received.ids != reference[received.number] for received in good),
        "moved": len(moved),
        "tokens": sum(len(received.ids) for received in found.streams),
        "gaps": {
            "undisturbed": _gaps(gap for received in found.reference for _, gap in received.gaps),
            "moved": _gaps(hit),
            "others": _gaps(others),
        },
    }


def table(summary: dict[str, Any], title: str) -> Table:
    """Streams first, then the gaps in milliseconds."""
    found = Table(title=title, caption=summary["machine"])
    for column in ("", "count", "P50, ms", "P99, ms", "longest, ms"):
        found.add_column(column, justify="left" if not column else "right")
    for label, name in (
        ("group deaths", "deaths"),
        ("streams", "streams"),
        ("moved to another group", "moved"),
        ("with other tokens than undisturbed", "differing"),
        ("lost", "lost"),
    ):
        found.add_row(label, f"{summary[name]}")
    for label, name in (
        ("gaps, undisturbed", "undisturbed"),
        ("longest gap at a death, of streams there", "moved"),
        ("the same, of streams elsewhere", "others"),
    ):
        gaps = summary["gaps"][name]
        times = [f"{gaps[key] * 1e3:.0f}" for key in ("p50", "p99", "longest") if gaps["count"]]
        found.add_row(label, f"{gaps['count']}", *times)
    return found


def _group_at(moves: Sequence[tuple[float, str]], moment: float) -> str | None:
    """The incarnation that ran a request at a moment; None: it waited, or had not begun."""
    return next((group for at, group in reversed(moves) if at <= moment), None)


def _gap_at(received: Received, death: Death) -> float | None:
    """The longest gap of a stream around a death; None where it had ended or not begun."""
    if not received.arrivals or not received.arrivals[0] <= death.at <= received.arrivals[-1]:
        return None
    return max(
        (gap for began, gap in received.gaps if began + gap >= death.at and began <= death.at + 2.0),
        default=None,
    )


def _gaps(gaps: Iterable[float]) -> dict[str, float]:
    found = list(gaps)
    if not found:
        return {"count": 0}
    p50, p99 = np.percentile(found, [50, 99]).tolist()
    return {"count": len(found), "p50": p50, "p99": p99, "longest": max(found)}
