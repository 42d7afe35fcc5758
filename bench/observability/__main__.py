"""The whole stack on the CPU under load, seen by a real Prometheus and a collector: does all of it arrive?

    python -m bench.observability --picture docs/request_trace.png

Needs `prometheus` on the PATH. Checks that every metric is scraped with a plausible value, that every query
of every dashboard returns data, that the alert rules load, and that a request's trace has spans of all tiers.
Ends with status 1 where something does not hold.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from albireo.client import Client
from albireo.local.ports import free_port
from albireo.local.stack import Stack, StackError, StackSettings
from albireo.models import TINY
from albireo.telemetry.catalogue import WORKER_STEPS
from bench.observability import load, picture
from bench.observability.prometheus import Prometheus
from bench.observability.report import Found, problems, tables
from bench.observability.verdicts import Known, asked, judged
from bench.otlp_receiver import OtlpReceiver, ReceivedSpan
from bench.serve.report import machine

OBSERVABILITY = Path("deploy/observability")
SLOTS, CLIENTS, MAX_QUEUE, RANKS = 16, 28, 20, 2
TRACED = 6
IDLE_SECONDS, SPANS_SECONDS, SCRAPED_SECONDS = 30.0, 15.0, 2.5
SERVICES = ("gateway", "scheduler", "worker")
TIERS = {f"albireo-{service}" for service in SERVICES}


def main(
    model: Annotated[Path, typer.Option(help="Directory of the checkpoint.")] = TINY,
    seconds: Annotated[float, typer.Option(min=5, help="Of load, before and after the group dies.")] = 25,
    drawing: Annotated[
        Path | None, typer.Option("--picture", help="Draw a trace into this PNG (needs albireo[bench]).")
    ] = None,
) -> None:
    """Prints what was found, table by table."""
    headers = dict(load.trace_header(number) for number in range(1, TRACED + 1))
    with ExitStack() as running:
        data = Path(running.enter_context(tempfile.TemporaryDirectory()))
        receiver = running.enter_context(OtlpReceiver())
        ports = {service: free_port("127.0.0.1") for service in SERVICES}
        stack = running.enter_context(_serving(model, data, receiver, ports))
        targets = {service: [f"127.0.0.1:{port}"] for service, port in ports.items()}
        targets["worker"] = [f"127.0.0.1:{ports['worker'] + rank}" for rank in range(RANKS)]
        prometheus = running.enter_context(
            Prometheus(data / "prometheus", targets, OBSERVABILITY / "alerts.yml")
        )
        began = time.time()
        told = asyncio.run(
            load.run(stack.target, clients=CLIENTS, seconds=seconds, traceparents=list(headers.values()))
        )
        _wait_idle(stack.target)
        by_rank = prometheus.series(WORKER_STEPS.prometheus, time.time() - 1, time.time())
        with Client(stack.target) as client:
            blocks = client.load().blocks_total
        os.kill(stack.units["worker"].pids[-1], signal.SIGKILL)
        after = asyncio.run(load.run(stack.target, clients=CLIENTS, seconds=seconds / 2, seed=2))
        _wait_idle(stack.target)
        known = Known(
            slots=SLOTS,
            blocks=blocks,
            ranks=RANKS,
            clients=CLIENTS + TRACED,
            calls=told.statuses.total() + after.statuses.total(),
            output_tokens=told.output_tokens + after.output_tokens,
            max_queue=MAX_QUEUE,
        )
        ended = time.time()
        found = Found(
            statuses=told.statuses + after.statuses,
            steps_by_rank=[line.values[-1] for line in by_rank],
            verdicts=judged(prometheus, known, ended - began),
            panels=asked(prometheus, OBSERVABILITY / "grafana" / "dashboards", began, ended),
            rules=prometheus.rules(),
            targets=prometheus.targets(),
            trace=_trace(receiver, set(headers)),
        )
    Console(width=150).print(*tables(found), sep="\n")
    if drawing is not None and found.trace:
        setup = f"{model.name} on {RANKS} ranks, {CLIENTS} clients and {SLOTS} slots; {machine()}"
        picture.draw(found.trace, drawing, setup=setup)
    wrong = problems(found, TIERS)
    if wrong:
        sys.exit("\n".join(wrong))


@contextmanager
def _serving(model: Path, data: Path, receiver: OtlpReceiver, ports: dict[str, int]) -> Iterator[Stack]:
    """A stack with all its telemetry on, few slots, a short queue, and KV blocks for a part of the slots."""
    environment = {
        "ALBIREO_WORKER_MAX_SEQS": str(SLOTS),
        "ALBIREO_WORKER_KV_MEMORY": "1MiB",
        "ALBIREO_GATEWAY_MAX_QUEUE": str(MAX_QUEUE),
        **{f"ALBIREO_{service.upper()}_METRICS_PORT": str(port) for service, port in ports.items()},
    }
    options = {"model": model, "tp": RANKS, "port": 0, "data_dir": data, "otlp_endpoint": receiver.endpoint}
    stop = threading.Event()
    with Stack(StackSettings.model_validate(options), environment) as stack:
        if not stack.wait_ready(stop):
            raise StackError("interrupted")
        watching = threading.Thread(target=stack.watch, args=(stop,))
        watching.start()
        try:
            yield stack
        finally:
            stop.set()
            watching.join(timeout=30)


def _wait_idle(target: str) -> None:
    """Until nothing waits or runs, and what the scheduler says of itself has been scraped since.

    Raises StackError.
    """
    deadline = time.monotonic() + IDLE_SECONDS
    with Client(target) as client:
        while (load := client.load()).waiting or load.running or not load.group_alive:
            if time.monotonic() > deadline:
                raise StackError(f"not idle {IDLE_SECONDS:.0f} s after the load")
            time.sleep(0.2)
    time.sleep(SCRAPED_SECONDS)


def _trace(receiver: OtlpReceiver, trace_ids: set[str]) -> list[ReceivedSpan]:
    """A request that ran from end to end, of those that were traced for this; the one that waited longest."""
    deadline = time.monotonic() + SPANS_SECONDS
    while True:
        traces = {
            trace_id: [span for span in receiver.spans if span.trace_id == trace_id] for trace_id in trace_ids
        }
        whole = [spans for spans in traces.values() if {span.service for span in spans} == TIERS]
        if len(whole) == len(trace_ids) or time.monotonic() > deadline:
            straight = [spans for spans in whole if len(spans) == 4] or whole
            return max(straight, key=_queued, default=[])
        time.sleep(0.2)


def _queued(spans: list[ReceivedSpan]) -> int:
    return sum(span.end - span.start for span in spans if span.name == "queue")


if __name__ == "__main__":
    typer.run(main)
