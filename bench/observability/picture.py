"""The spans of one request as a picture: one lane a span, colours by tier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.otlp_receiver import ReceivedSpan

TIERS = {
    "albireo-gateway": ("gateway", "#4c72b0"),
    "albireo-scheduler": ("scheduler", "#55a868"),
    "albireo-worker": ("worker", "#dd8452"),
}
INK, FAINT, GRID = "#333333", "#888888", "#e3e3e3"
FACTS = {
    "gen_ai.usage.input_tokens": "{} prompt tokens",
    "gen_ai.usage.cache_read.input_tokens": "{} of them cached",
    "gen_ai.usage.output_tokens": "{} tokens",
}


def draw(spans: Sequence[ReceivedSpan], path: Path, *, setup: str) -> None:
    """``spans``: of one trace. ``setup``: a line below about where they come from."""
    import matplotlib  # here: slow to import

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    whole = next(span for span in spans if span.service == "albireo-gateway")
    lanes = [whole, *sorted((span for span in spans if span is not whole), key=lambda span: span.start)]
    total = _milliseconds(whole.end - whole.start)
    figure, axes = pyplot.subplots(figsize=(11, 1.5 + 0.72 * len(lanes)), layout="constrained")
    for row, span in enumerate(lanes):
        color = TIERS[span.service][1]
        left, width = _milliseconds(span.start - whole.start), _milliseconds(span.end - span.start)
        axes.barh(row, max(width, total / 500), left=left, height=0.62, color=color)
        text = "   ".join((f"{width:.1f} ms", *_facts(span)))
        # In the bar, else on that side of it where there is more room.
        if width > 0.45 * total:
            place, align, shift, ink = left + width / 2, "center", 0, "white"
        elif left > total - left - width:
            place, align, shift, ink = left, "right", -8, INK
        else:
            place, align, shift, ink = left + width, "left", 8, INK
        axes.annotate(
            text,
            (place, row),
            xytext=(shift, 0),
            textcoords="offset points",
            ha=align,
            va="center",
            fontsize=12,
            color=ink,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5} if shift else None,
        )
    first = min(span.end for span in spans if span.name == "prefill")
    axes.axvline(_milliseconds(first - whole.start), color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.annotate(
        "first token",
        (_milliseconds(first - whole.start), -0.5),
        xytext=(5, 2),
        textcoords="offset points",
        fontsize=11,
        color=INK,
        va="bottom",
    )
    axes.set_yticks(range(len(lanes)), [span.name for span in lanes], fontsize=13, color=INK)
    for label, span in zip(axes.get_yticklabels(), lanes, strict=True):
        label.set_color(TIERS[span.service][1])
        label.set_fontweight("bold")
    axes.set_xlim(-0.01 * total, 1.02 * total)
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=11, colors=INK)
    axes.set_xlabel("milliseconds since the gateway had the request", loc="left", fontsize=12, color=INK)
    axes.annotate(
        setup,
        (1, 0),
        xycoords="axes fraction",
        xytext=(0, -26),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=9.5,
        color=FAINT,
    )
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    figure.legend(
        [Patch(color=color) for _, color in TIERS.values()], [name for name, _ in TIERS.values()],
        ncols=len(TIERS), loc="outside upper right", frameon=False, fontsize=12,
    )  # fmt: skip
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr, call-arg]
    figure.suptitle(
        "One request, one trace, three tiers", x=0.013, ha="left", fontsize=15, color=INK, fontweight="bold"
    )
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _milliseconds(nanoseconds: int) -> float:
    return nanoseconds / 1e6


def _facts(span: ReceivedSpan) -> list[str]:
    """What its attributes say, in words."""
    told = [text.format(span.attributes[name]) for name, text in FACTS.items() if span.attributes.get(name)]
    if span.attributes.get("albireo.preempted"):
        told.append("after a preemption" if span.name == "queue" else "then preempted")
    return told
