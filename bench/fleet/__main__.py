"""Prints the tables of ``bench.fleet``; see there.

python -m bench.fleet [--case leader|speeds|prefixes|queue] [--seconds S] [--groups N ...] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from albireo.runtime.process import collect_rarely, freeze_heap
from bench.fleet import cases
from bench.machine import machine


def leader(groups: Sequence[int], seconds: float) -> dict[str, Any]:
    costs = [cases.leader_cost(count, LEADER_SHARE * seconds) for count in groups]
    rows = [[c.groups, c.steps, c.rows, c.microseconds, c.redis, c.groups_at_most] for c in costs]
    names = ["groups", "steps", "rows a step", "us a step", "+ Redis", "one core leads at most"]
    note = (
        f"{costs[-1].groups} groups over {costs[0].groups}: "
        f"{costs[-1].microseconds / costs[0].microseconds:.2f} without Redis\n"
        "a step of every group in each turn; Redis: a plan appended, a result read, on this machine"
    )
    _print("The scheduler's CPU time for one step of one group", names, rows, note)
    return {"leader": [asdict(cost) for cost in costs]}


def speeds(_: Sequence[int], seconds: float) -> dict[str, Any]:
    found = cases.unequal_speeds(seconds)
    rows: list[list[object]] = [
        [f"{step} ms", round(alone), round(together)]
        for step, alone, together in zip((40, 20, 10), found.alone, found.together, strict=True)
    ]
    rows.append(["sum", round(sum(found.alone)), round(sum(found.together))])
    note = f"together over alone: {found.share:.3f}"
    _print("Tokens a second of unequal groups", ["step", "alone", "together"], rows, note)
    return {"speeds": asdict(found) | {"share": found.share}}


def prefixes(_: Sequence[int], seconds: float) -> dict[str, Any]:
    found = cases.prefix_load(seconds)
    rows: list[list[object]] = [
        ["cached share of prompts, 3 groups", round(found.cached, 3)],
        ["cached share, one group with all memory", round(found.cached_by_one, 3)],
        ["ratio", round(found.cached / found.cached_by_one, 3)],
        ["rows of each group", str(found.rows)],
        ["spread", round(found.spread, 3)],
    ]
    _print("20 prefixes by Zipf's law", ["", ""], rows, "")
    return {"prefixes": asdict(found) | {"spread": found.spread}}


def queue(groups: Sequence[int], seconds: float) -> dict[str, Any]:
    found = [cases.queue_time(count, 0.7, seconds) for count in groups]
    rows = [
        [w.groups, w.requests, *(round(1e3 * x, 1) for x in (w.p50, w.ideal_p50, w.p99, w.ideal_p99))]
        for w in found
    ]
    names = ["groups", "requests", "P50, ms", "ideal", "P99, ms", "ideal"]
    _print("TTFT at 70 % load, against one M/G/k queue of all slots", names, rows, "")
    return {"queue": [asdict(waiting) for waiting in found]}


LEADER_SHARE = 10
"""Times the seconds of the other cases, of all groups together."""
CASES = {"leader": leader, "speeds": speeds, "prefixes": prefixes, "queue": queue}


def _print(title: str, names: Sequence[str], rows: Sequence[Sequence[object]], note: str) -> None:
    table = Table(
        box=SIMPLE_HEAD, pad_edge=False, title=title, caption=f"{note}\nsimulated groups; {machine()}"
    )
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*map(str, row))
    Console(stderr=True).print(table)


def main() -> None:
    """Runs the cases that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet")
    parser.add_argument("--case", choices=CASES, action="append", help="all by default")
    parser.add_argument("--seconds", type=float, default=10.0, help="virtual seconds that are measured")
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    freeze_heap()
    collect_rarely()  # as in the scheduler's process
    found: dict[str, Any] = {"machine": machine()}
    for name in options.case or CASES:
        found |= CASES[name](options.groups, options.seconds)
    if options.json:
        json.dump(found, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
