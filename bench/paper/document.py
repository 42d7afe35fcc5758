"""Writes the outcome as a document, ``docs/paper.md``; its text is in ``text.md`` here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from string import Template

from bench.paper import comparison, data, tables
from bench.paper.missing import Contention
from bench.paper.outcome import Outcome

COMMAND = "python -m bench.paper --chart docs/paper.png --document docs/paper.md"
TEXT = Path(__file__).with_name("text.md")


def document(outcome: Outcome, path: Path, *, date: str) -> None:
    """The picture is expected in the same folder."""
    values = {
        "date": date,
        "command": COMMAND,
        "source": data.SOURCE,
        "row": f"{data.CALIBRATED.model} at t = {data.CALIBRATED.tp}",
        "in_flight": str(data.IN_FLIGHT),
        **_found(outcome),
        **_calibrated(outcome),
        **_chosen(outcome),
        **_missing(outcome),
    }
    text = Template(TEXT.read_text(encoding="utf-8")).substitute(values)
    path.write_text(text.strip() + "\n", encoding="utf-8")


def _found(outcome: Outcome) -> Mapping[str, str]:
    summary = outcome.summary
    sections = [tables.figures(outcome, section) for section in tables.TITLES]
    return {
        "count": str(summary.figures),
        "median": f"{100 * summary.median:.1f} %",
        "worst": f"{100 * abs(summary.worst.error):.1f} %",
        "worst_at": f"{summary.worst.what}, {summary.worst.mode}",
        "errors": tables.errors(outcome).markdown(),
        "sections": "\n".join(f"## {table.title}\n\n{table.markdown()}" for table in sections),
        "order": _agrees(comparison.orders_agree(outcome.throughput)),
        "degrees": tables.degrees(outcome).markdown(),
        "orders": tables.orders(outcome).markdown(),
        "by_devices": _agrees(all(f.by_devices == f.paper for f in outcome.degrees if f.claim.stated)),
    }


def _agrees(right: bool) -> str:
    return "as in the paper" if right else "**not** as in the paper"


def _calibrated(outcome: Outcome) -> Mapping[str, str]:
    efficiency, host = outcome.device.efficiency[0], outcome.device.host[0]
    return {
        "t1": f"{data.T1_MS:g}",
        "t2": f"{data.T2_MS:g}",
        "t3": f"{data.T3_MS:g}",
        "t4": f"{data.T4_MS:g}",
        "t5": f"{host.t5.row_us * data.IN_FLIGHT / 1e3:.1f}",
        "period": f"{data.IN_FLIGHT / data.CALIBRATED.throughput['synchronous']:.1f}",
        "weights": f"{efficiency.weights:.2f}",
        "kv": f"{efficiency.kv:.2f}",
        "compute": f"{efficiency.compute:.2f}",
        "attention": f"{efficiency.attention:.2f}",
    }


def _chosen(outcome: Outcome) -> Mapping[str, str]:
    efficiency, lengths = outcome.device.efficiency[0], outcome.lengths
    return {
        "prompt": str(lengths.prompt),
        "output": str(lengths.output),
        "mean_tokens": f"{lengths.mean:.0f}",
        "llama_tokens": f"{next(iter(outcome.most_tokens.values())):.0f}",
        "overlap": f"{efficiency.overlap:g}",
        "all_reduce": f"{efficiency.all_reduce_us:g}",
        "link": f"{efficiency.link:g}",
        "layer": f"{efficiency.layer_us:g}",
        "step": f"{efficiency.step_us:g}",
        "reserved": f"{outcome.device.reserved_gib:g}",
    }


def _missing(outcome: Outcome) -> Mapping[str, str]:
    return {
        "needed": "".join(f"- {_needed(needed)}\n" for needed in outcome.contention),
        "most": "".join(f"- {what}: {most:,.0f} tokens\n" for what, most in outcome.most_tokens.items()),
        "hosts": tables.hosts().markdown(),
        "effects": tables.effects(outcome).markdown(),
    }


def _needed(needed: Contention) -> str:
    which = f"{needed.model}, t = {needed.tp}"
    if math.isinf(needed.tokens):
        return f"{which}: more tokens than were tried"
    return (
        f"{which}: {needed.tokens:,.0f} tokens of each request in the KV cache, on average, and weights that "
        f"are read at {needed.weights:.2f} of the bandwidth, for the calibrated row to be met at that length"
    )
