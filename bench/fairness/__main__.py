"""Prints the tables of ``bench.fairness``; see there.

python -m bench.fairness [--groups N ...] [--seconds S] [--seed N] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.fairness.cases import (
    EARLIEST,
    LATEST,
    LOADS,
    Flood,
    Priorities,
    Weights,
    flood,
    priorities,
    weights,
)
from bench.fairness.fleet import PRIORITY_SECONDS, SLOTS
from bench.machine import machine


def _print(floods: Sequence[Flood], shares: Sequence[Weights], waits: Priorities) -> None:
    console = Console(stderr=True)
    kind = f"simulated groups of {SLOTS} slots; {machine()}"
    view = Table(box=SIMPLE_HEAD, pad_edge=False, title="TTFT while another tenant floods, ms", caption=kind)
    for name in (
        "groups",
        "load",
        "requests",
        "half alone, P50",
        "P99",
        "with the flood, P50",
        "P99",
        "rise of P99",
    ):
        view.add_column(name, justify="right")
    for found in floods:
        times = (found.alone_p50, found.alone_p99, found.p50, found.p99)
        view.add_row(
            str(found.groups),
            f"{found.load:g}",
            str(found.requests),
            *(f"{1e3 * x:.0f}" for x in times),
            f"{100 * found.rise:+.0f} %",
        )
    console.print(view)
    view = Table(box=SIMPLE_HEAD, pad_edge=False, title="Tokens under saturation", caption=kind)
    for name in ("weight", "tokens", "share", "from its weight"):
        view.add_column(name, justify="right")
    for one in shares:
        view.add_row(f"{one.weight:g}", str(one.tokens), f"{one.share:.4f}", f"{100 * one.deviation:+.1f} %")
    console.print(view)
    console.print(
        f"Longest wait where requests of priority {EARLIEST} always wait: {waits.earliest:.1f} s at "
        f"{EARLIEST}, {waits.latest:.1f} s at {LATEST} "
        f"({waits.requests} requests; {PRIORITY_SECONDS:g} s a level)"
    )


def main() -> None:
    """Runs all three, and prints them."""
    parser = argparse.ArgumentParser(prog="python -m bench.fairness")
    parser.add_argument("--groups", type=int, nargs="+", default=[4, 8], help="even numbers, for the flood")
    parser.add_argument("--seconds", type=float, default=30.0, help="virtual seconds that are measured")
    parser.add_argument("--seed", type=int, default=1, help="of arrivals, lengths and tokens")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    seconds, seed = options.seconds, options.seed
    floods = [flood(groups, load, seconds, seed=seed) for groups in options.groups for load in LOADS]
    shares = weights(4, seconds, seed=seed)
    waits = priorities(2, seconds, seed=seed)
    _print(floods, shares, waits)
    if options.json:
        found = {
            "machine": machine(),
            "flood": [asdict(one) | {"rise": one.rise} for one in floods],
            "weights": [asdict(one) for one in shares],
            "priorities": asdict(waits),
        }
        json.dump(found, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
