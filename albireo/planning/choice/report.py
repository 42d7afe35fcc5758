"""The answer of ``albireo plan`` for readers: a table, the commands, and a chart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from albireo.planning.choice.commands import (
    ENVIRONMENT_FILE,
    GROUPS_FILE,
    compose_command,
    compose_groups,
    compose_settings,
    kubernetes_overlay,
    up_command,
)
from albireo.planning.choice.outcome import Outcome
from albireo.planning.choice.recommendation import Recommendation
from albireo.planning.choice.serving import Serving
from albireo.planning.choice.split import Split
from albireo.tools.drawing import drawing

COLUMNS = (
    "tokens/s",
    "TTFT, ms\np50 / p99",
    "TPOT, ms\np50 / p99",
    "KV\nfree",
    "pre-\nempted",
    "prefix\nhits",
    "rows a\nstep",
    "J a\ntoken",
)
NOTES = "Groups x TP degree; throughput of all groups, latencies of one, in the steady part of the run."
COLORS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#8c8c8c")
OTHER_COLORS = ("#ccb974", "#64b5cd", "#b0b0b0")


def table(found: Recommendation) -> Table:
    """A row for each split; latencies in milliseconds."""
    shown = Table("split", title=Text(f"simulated: {found.question.setup}"), box=SIMPLE, padding=0)
    counts = ", ".join(f"{outcome.split}: {outcome.requests}" for outcome in found.outcomes)
    shown.caption = Text(f"{found.question.workload.name}. {NOTES} Requests simulated in a group: {counts}.")
    for column in COLUMNS:
        shown.add_column(column, justify="right")
    for outcome in found.outcomes:
        best = outcome is found.choice.best
        shown.add_row(
            f"{outcome.split}{' *' if best else ''}", *_cells(outcome), style="bold" if best else ""
        )
    return shown


def _cells(outcome: Outcome) -> tuple[str, ...]:
    energy = outcome.joules_per_token
    return (
        f"{outcome.tokens_per_second:,.0f}",
        _milliseconds(outcome.ttft),
        _milliseconds(outcome.tpot),
        f"{outcome.kv_headroom:.0%}",
        str(outcome.preemptions * outcome.split.groups),
        f"{sum(outcome.hits.values()):.0%}",
        f"{outcome.rows:.0f}",
        "--" if energy is None else f"{energy:.2f}",
    )


def _milliseconds(spread: dict[str, float]) -> str:
    """Three digits."""
    values = [spread[name] * 1e3 for name in ("p50", "p99") if spread]
    return " / ".join(f"{value:,.0f}" if value >= 100 else f"{value:.1f}" for value in values) or "--"


def lines(found: Recommendation) -> Iterator[str]:
    """What stands below the table: the choice, its reasons, the rules, and what runs the choice."""
    best, serving = found.choice.best.split, found.question.serving
    word = "best" if found.choice.within else "nearest to the limits"
    groups = "one group" if best.groups == 1 else f"{best.groups} groups"
    yield f"{word}: {best}, {groups} at TP degree {best.tp}"
    yield from found.reasons
    for outcome in found.outcomes:
        if outcome.failed:
            why = "; ".join(outcome.errors)
            yield f"{outcome.split}: {outcome.failed} of {outcome.requests} requests failed: {why}"
    for unfit in found.unfit:
        yield f"{unfit.split}: {unfit.reason}"
    yield found.degrees
    if found.question.device.calibration is None:
        name = found.question.device.name
        yield f"{name} was not calibrated on a machine; `albireo calibrate` measures the one at hand"
    yield ""
    yield "On this machine:"
    yield f"  {up_command(best, serving)}"
    yield from _compose(best, serving)
    yield ""
    yield "Kubernetes: kubectl apply -k deploy/kubernetes/overlays/plan, with its kustomization.yaml:"
    yield from (f"  {line}" for line in kubernetes_overlay(best, serving).splitlines())


def _compose(split: Split, serving: Serving) -> Iterator[str]:
    yield ""
    yield f"Compose: {compose_command(split, serving)}, with {ENVIRONMENT_FILE}:"
    yield from (f"  {line}" for line in compose_settings(split, serving).splitlines())
    if groups := compose_groups(split, serving):
        yield f"and {GROUPS_FILE}:"
        yield from (f"  {line}" for line in groups.splitlines())


def chart(found: Recommendation, path: Path) -> None:
    """Throughput of each split, and what the devices spend their time on for each token."""
    names = [str(outcome.split) for outcome in found.outcomes]
    best = found.outcomes.index(found.choice.best)
    terms = list(dict.fromkeys(term for outcome in found.outcomes for term in outcome.terms))
    with drawing(path, 1, 2, figsize=(11, 4.2)) as (figure, (left, right)):
        left.bar(
            names,
            [outcome.tokens_per_second for outcome in found.outcomes],
            color=[COLORS[2] if place == best else COLORS[0] for place in range(len(names))],
        )
        left.set_ylabel("output tokens/s, simulated")
        left.set_xlabel("groups x TP degree")
        bottom = [0.0] * len(names)
        for term, color in zip(terms, (*COLORS, *OTHER_COLORS), strict=False):
            heights = [outcome.terms.get(term, 0.0) * 1e6 for outcome in found.outcomes]
            right.bar(names, heights, bottom=bottom, label=term, color=color)
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        right.set_ylabel("device µs for an output token, simulated")
        right.set_xlabel("groups x TP degree")
        right.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        right.margins(y=0.1)
        figure.suptitle(f"{found.question.setup}; {found.question.workload.name}", fontsize=9)
