"""The spans of one request as a picture: one lane a span, coloured by tier.

Called by ``python -m bench.observability --picture``, which draws ``docs/request_trace.png``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from albireo.tools.drawing import drawing
from bench.observability.otlp_receiver import ReceivedSpan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TIERS = {
    "albireo-gateway": ("gateway", "#4c72b0"),
    "albireo-scheduler": ("scheduler", "#55a868"),
    "albireo-worker": ("worker", "#dd8452"),
}
INK, FAINT, GRID = "#333333", "#888888", "#e3e3e3"
NUMBERS = {
    "gen_ai.usage.input_tokens": "{} prompt tokens",
    "gen_ai.usage.cache_read.input_tokens": "{} of them cached",
    "gen_ai.usage.output_tokens": "{} tokens",
}


def draw(spans: Sequence[ReceivedSpan], path: Path, *, setup: str) -> None:
    """``spans``: those of one trace. ``setup``: a line below that says where they come from."""
    whole = next(span for span in spans if span.service == "albireo-gateway")
    lanes = [whole, *sorted((span for span in spans if span is not whole), key=lambda span: span.start)]
    with drawing(path, figsize=(11, 1.5 + 0.72 * len(lanes))) as (figure, axes):
        for row, span in enumerate(lanes):
            _draw_span(axes, row, span, whole)
        first_token = min(span.end for span in spans if span.name == "prefill")
        _draw_first_token(axes, _milliseconds(first_token - whole.start))
        _format_axes(axes, lanes, _milliseconds(whole.end - whole.start))
        axes.annotate(
            setup, (1, 0), xycoords="axes fraction", xytext=(0, -26), textcoords="offset points",
            ha="right", va="top", fontsize=9.5, color=FAINT,
        )  # fmt: skip
        _add_titles(figure)


def _draw_span(axes: Axes, row: int, span: ReceivedSpan, whole: ReceivedSpan) -> None:
    """A bar, and its duration and numbers: in the bar, else on that side of it with more free width."""
    total = _milliseconds(whole.end - whole.start)
    left, width = _milliseconds(span.start - whole.start), _milliseconds(span.end - span.start)
    axes.barh(row, max(width, total / 500), left=left, height=0.62, color=TIERS[span.service][1])
    if width > 0.45 * total:
        x, align, shift, ink = left + width / 2, "center", 0, "white"
    elif left > total - left - width:
        x, align, shift, ink = left, "right", -8, INK
    else:
        x, align, shift, ink = left + width, "left", 8, INK
    axes.annotate(
        "   ".join((f"{width:.1f} ms", *_numbers(span))),
        (x, row),
        xytext=(shift, 0),
        textcoords="offset points",
        ha=align,
        va="center",
        fontsize=12,
        color=ink,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5} if shift else None,
    )


def _draw_first_token(axes: Axes, at: float) -> None:
    """A dashed line at ``at`` milliseconds."""
    axes.axvline(at, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.annotate(
        "first token", (at, -0.5), xytext=(5, 2), textcoords="offset points",
        fontsize=11, color=INK, va="bottom",
    )  # fmt: skip


def _format_axes(axes: Axes, lanes: Sequence[ReceivedSpan], total: float) -> None:
    axes.set_yticks(range(len(lanes)), [span.name for span in lanes], fontsize=13, color=INK)
    for label, span in zip(axes.get_yticklabels(), lanes, strict=True):
        label.set_color(TIERS[span.service][1])
        label.set_fontweight("bold")
    axes.set_xlim(-0.01 * total, 1.02 * total)
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=11, colors=INK)
    axes.set_xlabel("milliseconds since the gateway had the request", loc="left", fontsize=12, color=INK)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)


def _add_titles(figure: Figure) -> None:
    from matplotlib.patches import Patch

    figure.legend(
        [Patch(color=color) for _, color in TIERS.values()], [name for name, _ in TIERS.values()],
        ncols=len(TIERS), loc="outside upper right", frameon=False, fontsize=12,
    )  # fmt: skip
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr, call-arg]
    figure.suptitle(
        "One request, one trace, three tiers", x=0.013, ha="left", fontsize=15, color=INK, fontweight="bold"
    )


def _milliseconds(nanoseconds: int) -> float:
    return nanoseconds / 1e6


def _numbers(span: ReceivedSpan) -> list[str]:
    """Token counts, and whether the request was preempted."""
    found = [
        text.format(span.attributes[name]) for name, text in NUMBERS.items() if span.attributes.get(name)
    ]
    if span.attributes.get("albireo.preempted"):
        found.append("after a preemption" if span.name == "queue" else "then preempted")
    return found
