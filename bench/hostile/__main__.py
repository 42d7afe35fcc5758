"""The command ``python -m bench.hostile``: attacks one gateway while it serves ordinary clients.

    python -m bench.hostile

Starts a stack on the simulated device (steps of 20 ms), all on loopback. Ordinary clients stream all the
time: first alone, then during each attack in turn. The exit status is 1 where a process ended, the P99 gap
between messages of the ordinary clients more than doubled, one of their calls failed, a log has a traceback,
the gateway's memory did not return to within 10 % of what it was after a first round of attacks, a malformed
call ended with UNKNOWN or INTERNAL, or a call that was kept open did not end. The attackers run on the same
cores, at the lowest priority.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from rich.console import Console
from rich.table import Table

from albireo.local.stack import Stack
from albireo.models import TINY
from albireo.v1 import control_pb2, control_pb2_grpc
from bench.hostile.ordinary import OrdinaryClients
from bench.machine import machine
from bench.stack import running_stack

ROOT = Path(__file__).resolve().parents[2]
STEP = 'name = "steps-of-20ms"\nsource = "bench.hostile"\n[t3]\nfixed_ms = 19.0\n[t4]\nfixed_ms = 1.0\n'
ENVIRONMENT = {"ALBIREO_GATEWAY_MESSAGE_SECONDS": "5", "ALBIREO_GATEWAY_WRITE_SECONDS": "5"}
"""Shorter than by default, so that calls that are kept open end during the run."""
HOLD_SECONDS = 12.0
MOST_GAP, MOST_MEMORY = 2.0, 1.1
MEMORY_SECONDS = 20
FAULTS = ("UNKNOWN", "INTERNAL", "no answer", "still open")
FIRST_ROUND = {"malformed": 1_000, "begins": 10_000, "readers": 300, "storms": 500}
"""Calls of a first round, which is not measured: the pools of gRPC and of the allocators grow to what the
most calls at once need, and keep that size. Growth beyond it would be a leak."""


@dataclass
class Phase:
    """The effects of one attack."""

    name: str
    statuses: dict[str, int]
    p99: float  # seconds
    failures: list[str]
    died: bool
    problems: list[str] = field(default_factory=list)


async def attack(name: str, target: str, count: int, hold: float) -> dict[str, int]:
    """Runs an attack in a process of its own. Statuses of its calls; of calls that it keeps open, those after
    ``hold`` seconds. Raises RuntimeError where the attack failed to run.
    """
    host, _, port = target.rpartition(":")
    command = [sys.executable, "-m", "bench.hostile.attack", name, host, port, str(count), str(hold)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the attack {name} failed")
    statuses: dict[str, int] = json.loads(output)
    return statuses


def resident(pids: list[int]) -> float:
    """Memory of processes, in MiB."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
    return sum(pages) * 4096 / (1 << 20)


def alive(stack: Stack) -> tuple[Any, ...]:
    """Values that change when a tier restarts: processes and epoch."""
    with grpc.insecure_channel(stack.target) as channel:
        load = control_pb2_grpc.ControlStub(channel).GetLoad(control_pb2.GetLoadRequest(), timeout=10)
    failed = any(unit.failed() for unit in stack.units.values())
    return failed, [unit.pids for unit in stack.units.values()], load.epoch


async def measure(
    stack: Stack, counts: dict[str, int], *, clients: int, quiet_seconds: float, memory_seconds: float
) -> tuple[float, list[Phase], list[float]]:
    """P99 gap without attacks in seconds; effects of each attack; the gateway's memory in MiB by phase."""
    gateway, phases = stack.units["gateway"].pids, []
    async with OrdinaryClients(stack.target, clients) as ordinary:
        for name, count in counts.items():
            await attack(name, stack.target, min(count, FIRST_ROUND[name]), HOLD_SECONDS / 2)
        ordinary.phase = "quiet"
        await asyncio.sleep(quiet_seconds)
        quiet = ordinary.p99("quiet")
        before, memory = await asyncio.to_thread(alive, stack), [resident(gateway)]
        for name, count in counts.items():
            ordinary.phase = name
            statuses = await attack(name, stack.target, count, HOLD_SECONDS)
            died = await asyncio.to_thread(alive, stack) != before
            phase = Phase(name, statuses, ordinary.p99(name), ordinary.failures[name], died)
            phase.problems = _problems(phase, quiet)
            phases.append(phase)
            memory.append(resident(gateway))
        ordinary.phase = "after"
        for _ in range(int(memory_seconds)):
            if resident(gateway) <= MOST_MEMORY * memory[0]:
                break
            await asyncio.sleep(1)
        memory.append(resident(gateway))
    return quiet, phases, memory


def _problems(phase: Phase, quiet: float) -> list[str]:
    found = [f"{phase.statuses[name]} {name}" for name in FAULTS if phase.statuses.get(name)]
    if phase.p99 > MOST_GAP * quiet:
        found.append(f"P99 gap {phase.p99 / quiet:.1f} times as long")
    if phase.failures:
        found.append(f"{len(phase.failures)} ordinary calls failed, the first: {phase.failures[0]}")
    return [*found, *(["a process ended"] if phase.died else [])]


def report(quiet: float, phases: list[Phase], memory: list[float]) -> bool:
    """Prints what was measured. Returns whether all bounds hold."""
    table = Table("attack", "calls by status", "P99 gap", "gateway's memory", "problems", title=machine())
    table.add_row("none", "", f"{quiet * 1e3:.1f} ms", f"{memory[0]:.0f} MiB", "")
    for phase, resident_then in zip(phases, memory[1:], strict=False):
        statuses = ", ".join(f"{count} {name}" for name, count in sorted(phase.statuses.items()))
        cells = (f"{phase.p99 * 1e3:.1f} ms", f"{resident_then:.0f} MiB", "; ".join(phase.problems))
        table.add_row(phase.name, statuses, *cells)
    returned = memory[-1] <= MOST_MEMORY * memory[0]
    table.add_row(
        "none, after", "", "", f"{memory[-1]:.0f} MiB", "" if returned else "memory has not been given back"
    )
    Console().print(table)
    return returned and not any(phase.problems for phase in phases)


def main(
    malformed: Annotated[int, typer.Option(min=100, help="Malformed calls.")] = 20_000,
    begins: Annotated[int, typer.Option(min=100, help="Calls that only begin.")] = 10_000,
    readers: Annotated[int, typer.Option(min=20, help="Clients that do not read.")] = 1_000,
    storms: Annotated[int, typer.Option(min=10, help="Requests that are cancelled at once.")] = 5_000,
    clients: Annotated[int, typer.Option(min=1, help="Ordinary clients.")] = 8,
) -> None:
    """Attacks a gateway of its own and prints the effects."""
    counts = {"malformed": malformed, "begins": begins, "readers": readers, "storms": storms}
    with tempfile.TemporaryDirectory() as scratch:
        cost_model = Path(scratch) / "step.toml"
        cost_model.write_text(STEP, encoding="utf-8")
        options = {"device": "sim", "cost_model": str(cost_model), "model": TINY, "data_dir": scratch}
        with running_stack(options, ENVIRONMENT) as stack:
            run = measure(stack, counts, clients=clients, quiet_seconds=15, memory_seconds=MEMORY_SECONDS)
            passed = report(*asyncio.run(run))
        for log in Path(scratch).glob("logs/*.log"):
            if b"Traceback" in log.read_bytes():
                print(f"a traceback in {log.name}:\n{log.read_text(errors='replace')[-2000:]}")
                passed = False
    raise typer.Exit(0 if passed else 1)


if __name__ == "__main__":
    typer.run(main)
