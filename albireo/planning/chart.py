"""The chart of a simulated run. ``albireo simulate --chart`` draws it; it needs matplotlib, an extra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albireo.planning.report import PARTS, step_shares
from albireo.planning.result import SimulationResult
from albireo.tools.drawing import drawing

COLORS = ("#d9d9d9", "#dd8452", "#4c72b0", "#55a868", "#c44e52", "#ffffff")
MILLISECONDS = 1e3


def chart(result: SimulationResult, title: str, path: Path) -> None:
    """Four panels: requests and KV use over time, what the device did, and how TTFT and TPOT spread."""
    with drawing(path, 2, 2, figsize=(11, 6.5)) as (figure, axes):
        figure.suptitle(title, fontsize=10, parse_math=False)  # a file's name may have dollars
        _over_time(axes[0][0], result)
        _shares(axes[0][1], step_shares(result))
        good = [request for request in result.requests if not request.error]
        _spread(axes[1][0], [request.ttft for request in good], "TTFT, ms")
        _spread(axes[1][1], [request.tpot for request in good if request.tpot is not None], "TPOT, ms")
        for panel in axes.flat:
            panel.spines[["top", "right"]].set_visible(False)


def _over_time(axes: Any, result: SimulationResult) -> None:
    good = [request for request in result.requests if not request.error]
    for name, changes in (
        ("sent, no token yet", [(r.sent, r.first) for r in good]),
        ("decoding", [(r.first, r.ended) for r in good]),
    ):
        moments, counts = _running(changes)
        axes.step(moments, counts, where="post", label=name, linewidth=1)
    axes.set_xlabel("virtual seconds")
    axes.set_ylabel("requests")
    kv = axes.twinx()
    moments = [at for at, _ in result.kv_use]
    kv.step(
        moments,
        [100 * used / result.num_blocks for _, used in result.kv_use],
        where="post",
        color="#999999",
        linewidth=1,
    )
    kv.set_ylabel("KV blocks in use, % (grey)")
    kv.set_ylim(0, 105)
    axes.legend(frameon=False, fontsize=8)


def _running(spans: Sequence[tuple[float, float]]) -> tuple[list[float], list[int]]:
    """How many of the spans hold at each moment at which that changes."""
    changes = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    return [at for at, _ in changes], np.cumsum([step for _, step in changes]).tolist()


def _shares(axes: Any, shares: dict[str, float]) -> None:
    left = 0.0
    for (name, label), color in zip(PARTS.items(), COLORS, strict=True):
        share = shares[name] * 100
        axes.barh(
            ["device"],
            [share],
            left=[left],
            color=color,
            edgecolor="#888888",
            linewidth=0.5,
            label=f"{label}: {share:.1f} %",
        )
        left += share
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the run, %")
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.25))


def _spread(axes: Any, seconds: Sequence[float], label: str) -> None:
    """Which share of the requests was at most so slow."""
    values = np.sort(np.array(seconds)) * MILLISECONDS
    axes.step(values, np.arange(1, len(values) + 1) / max(1, len(values)) * 100, where="post")
    axes.set_xlabel(label)
    axes.set_ylabel("requests at most as slow, %")
    axes.set_ylim(0, 102)
