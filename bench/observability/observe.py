"""Runs a stack with all its telemetry on, under load, and collects what Prometheus and a collector got.

Called by ``python -m bench.observability``, from its main thread; a second thread keeps the stack running.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from albireo.client import Client
from albireo.local.ports import free_port
from albireo.local.stack import Stack, StackError
from albireo.telemetry.catalogue import WORKER_STEPS
from bench.observability import load
from bench.observability.otlp_receiver import OtlpReceiver, ReceivedSpan
from bench.observability.prometheus import Prometheus
from bench.observability.report import Found
from bench.observability.verdicts import Known, panel_queries, verdicts
from bench.stack import running_stack

OBSERVABILITY = Path("deploy/observability")
SLOTS, CLIENTS, MAX_QUEUE, RANKS = 16, 28, 20, 2
TRACED = 6
IDLE_SECONDS, SPANS_SECONDS, SCRAPED_SECONDS = 30.0, 15.0, 2.5
SERVICES = ("gateway", "scheduler", "worker")
TIERS = {f"albireo-{service}" for service in SERVICES}


@dataclass(frozen=True, slots=True)
class ObservedStack:
    """A running stack, the collector that it sends to, and the Prometheus that scrapes it."""

    stack: Stack
    receiver: OtlpReceiver
    prometheus: Prometheus

    def run_load(self, seconds: float, *, seed: int, traceparents: Sequence[str] = ()) -> load.ClientReport:
        """Runs the clients for ``seconds``, then waits until the stack is idle. Raises StackError."""
        target = self.stack.target
        run = load.run(target, clients=CLIENTS, seconds=seconds, seed=seed, traceparents=traceparents)
        report = asyncio.run(run)
        _wait_idle(target)
        return report

    def kill_a_rank(self) -> None:
        os.kill(self.stack.units["g0"].pids[-1], signal.SIGKILL)


def observe(model: Path, seconds: float) -> Found:
    """Load for ``seconds``, a rank is killed, load for half as long. Raises StackError, PrometheusError."""
    headers = dict(load.trace_header(number) for number in range(1, TRACED + 1))
    with observed_stack(model) as observed:
        prometheus, began = observed.prometheus, time.time()
        clients = observed.run_load(seconds, seed=1, traceparents=list(headers.values()))
        steps_by_rank = prometheus.series(WORKER_STEPS.prometheus, time.time() - 1, time.time())
        blocks = _blocks(observed.stack.target)
        observed.kill_a_rank()
        clients += observed.run_load(seconds / 2, seed=2)
        known = Known(
            slots=SLOTS,
            blocks=blocks,
            ranks=RANKS,
            clients=CLIENTS + TRACED,
            calls=clients.statuses.total(),
            output_tokens=clients.output_tokens,
            max_queue=MAX_QUEUE,
        )
        ended = time.time()
        return Found(
            statuses=clients.statuses,
            steps_by_rank=[line.values[-1] for line in steps_by_rank],
            verdicts=verdicts(prometheus, known, ended - began),
            panels=panel_queries(prometheus, OBSERVABILITY / "grafana" / "dashboards", began, ended),
            rules=prometheus.rules(),
            targets=prometheus.targets(),
            trace=_trace(observed.receiver, set(headers)),
        )


@contextmanager
def observed_stack(model: Path) -> Iterator[ObservedStack]:
    """Starts everything; stops it at the block's end. Raises StackError, PrometheusError."""
    ports = {service: free_port("127.0.0.1") for service in SERVICES}
    targets = {service: [f"127.0.0.1:{port}"] for service, port in ports.items()}
    targets["worker"] = [f"127.0.0.1:{ports['worker'] + rank}" for rank in range(RANKS)]
    with (
        tempfile.TemporaryDirectory() as data,
        OtlpReceiver() as receiver,
        _serving(model, receiver, ports) as stack,
        Prometheus(Path(data), targets, OBSERVABILITY / "alerts.yml") as prometheus,
    ):
        yield ObservedStack(stack, receiver, prometheus)


@contextmanager
def _serving(model: Path, receiver: OtlpReceiver, ports: dict[str, int]) -> Iterator[Stack]:
    """A stack with all its telemetry on, few slots, a short queue, and KV blocks for a part of the slots."""
    environment = {
        "ALBIREO_WORKER_MAX_SEQS": str(SLOTS),
        "ALBIREO_WORKER_KV_MEMORY": "1MiB",
        "ALBIREO_GATEWAY_MAX_QUEUE": str(MAX_QUEUE),
        **{f"ALBIREO_{service.upper()}_METRICS_PORT": str(port) for service, port in ports.items()},
    }
    options = {"model": model, "tp": RANKS, "otlp_endpoint": receiver.endpoint}
    stop = threading.Event()
    with running_stack(options, environment) as stack:
        watching = threading.Thread(target=stack.watch, args=(stop,))
        watching.start()
        try:
            yield stack
        finally:
            stop.set()
            watching.join(timeout=30)


def _blocks(target: str) -> int:
    """KV blocks of the group."""
    with Client(target) as client:
        return client.load().blocks_total


def _wait_idle(target: str) -> None:
    """Until nothing waits or runs, and the scheduler's metrics have been scraped since.

    Raises StackError.
    """
    deadline = time.monotonic() + IDLE_SECONDS
    with Client(target) as client:
        while (state := client.load()).waiting or state.running or not state.group_alive:
            if time.monotonic() > deadline:
                raise StackError(f"not idle {IDLE_SECONDS:.0f} s after the load")
            time.sleep(0.2)
    time.sleep(SCRAPED_SECONDS)


def _trace(receiver: OtlpReceiver, trace_ids: set[str]) -> list[ReceivedSpan]:
    """Of the requests that asked for a trace and ran from end to end: the one that waited longest."""
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
    """Nanoseconds in the queue."""
    return sum(span.end - span.start for span in spans if span.name == "queue")
