"""Several worker groups: they join, stop and die while streams run; none is left, and one comes back.

``__main__`` calls it. Nothing but the workers is started or stopped.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import grpc
from rich.table import Table

from albireo.v1 import control_pb2, control_pb2_grpc
from deploy.smoke.containers import (
    Failed,
    containers_of,
    docker,
    first_process,
    scale,
    state_of,
    wait_back,
)
from deploy.smoke.requests import PROMPT, Outcome, Stories, ask

WORKER = "worker"
GROUPS = 2
STORIES = 8
"""Streams that run when a group ends: placed by load, so that both groups have some."""
START_SECONDS = 120.0
LOAD_SECONDS = 15.0
"""The load that a gateway reports is a second old at most."""


def check(target: str) -> Table:
    """Raises Failed. Leaves one group. Returns how long each step took."""
    table = Table("groups", "s")

    def add(step: str, began: float) -> None:
        table.add_row(step, f"{time.monotonic() - began:.1f}")

    began = time.monotonic()
    scale_to(target, GROUPS)
    add("a second one is started, until both serve", began)
    for ends, end in (("stops", stop), ("dies", die)):
        table.add_row(f"one of two {ends}, until the scheduler has closed it", f"{end_one(target, end):.1f}")
        scale_to(target, GROUPS)
    began = time.monotonic()
    scale_to(target, 0)
    add("all stop", began)
    began = time.monotonic()
    ask_without_a_group(target)
    add("a request comes while there is none, until its answer by one that is then started", began)
    return table


def scale_to(target: str, number: int) -> None:
    scale(WORKER, number, timeout=START_SECONDS)
    wait_for(target, f"{number} groups", lambda load: len(load.groups) == number)


def end_one(target: str, end: Callable[[str], None]) -> float:
    """Ends one of the groups while streams run on all; seconds until the scheduler has closed it."""
    stories = Stories.start(target, STORIES)
    load = wait_for(target, "all at work", lambda load: all(group.running for group in load.groups))
    lives = incarnations(load)
    container = containers_of(WORKER)[0]
    before = state_of(container)
    began = time.monotonic()
    end(container)
    wait_for(target, "one that is gone", lambda load: bool(lives - incarnations(load)))
    seconds = time.monotonic() - began
    cut = stories.cut()
    if cut:
        raise Failed(f"a group ended, and with it {len(cut)} of {STORIES} streams: {cut}")
    if end is die:
        wait_back(container, before, deadline=time.monotonic() + START_SECONDS)
    return seconds


def stop(container: str) -> None:
    docker("stop", container)


def die(container: str) -> None:
    os.kill(first_process(container), signal.SIGKILL)


def ask_without_a_group(target: str) -> None:
    """A request waits while there is no group, and is answered by the first that is started."""
    outcomes: list[Outcome] = []

    def run() -> None:
        outcomes.append(ask(target, PROMPT, max_tokens=4, timeout=START_SECONDS))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    wait_for(target, "a request that waits", lambda load: load.waiting > 0)
    scale(WORKER, 1, timeout=START_SECONDS)
    thread.join(timeout=START_SECONDS)
    if not outcomes or outcomes[0].error:
        raise Failed(f"a request that waited for a group: {outcomes}")


def incarnations(load: control_pb2.Load) -> set[str]:
    return {group.incarnation for group in load.groups}


def wait_for(target: str, what: str, reached: Callable[[control_pb2.Load], bool]) -> control_pb2.Load:
    """Until the load is so; returns it. Raises Failed."""
    deadline = time.monotonic() + LOAD_SECONDS
    with grpc.insecure_channel(target) as channel:
        stub = control_pb2_grpc.ControlStub(channel)
        while True:
            try:
                load: control_pb2.Load = stub.GetLoad(control_pb2.GetLoadRequest(), timeout=5)
            except grpc.RpcError as error:
                raise Failed(f"{what}: GetLoad: {error.code().name}: {error.details()}") from None
            if reached(load):
                return load
            if time.monotonic() > deadline:
                raise Failed(f"{what}: not so after {LOAD_SECONDS:.0f} s: {load}")
            time.sleep(0.1)
