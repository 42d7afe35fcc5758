"""`albireo top` against a live stack, on the simulated device."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from albireo.tools.top.collector import Collector, View
from albireo.v1 import control_pb2 as control
from gateway.telemetry.step_feed import MAX_WATCHERS
from tests.stack import Running, request, running_stack, wait_for

COMMAND = [sys.executable, "-m", "albireo.cli", "top"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_stack(tmp_path_factory.mktemp("top"), device="sim", cost_model="fast-5ms") as running:
        yield running


@contextlib.contextmanager
def load(running: Running) -> Iterator[None]:
    """Four requests decode as long as the block runs, or until the gateway is gone: one that ends is
    followed by another."""
    message = request("Tell me a story.", max_tokens=900, ignore_eos=True)
    calls: list[Any] = [running.inference.Generate(message, timeout=60) for _ in range(4)]
    over = threading.Event()

    def read(place: int) -> None:
        with contextlib.suppress(grpc.RpcError):
            while not over.is_set():
                for _ in calls[place]:
                    pass
                calls[place] = running.inference.Generate(message, timeout=60)

    readers = [threading.Thread(target=read, args=(place,)) for place in range(len(calls))]
    for reader in readers:
        reader.start()
    try:
        yield
    finally:
        over.set()
        for call in calls:
            call.cancel()
        for reader in readers:
            reader.join(timeout=10)


def test_one_frame_under_load_and_its_picture(stack: Running, tmp_path: Path) -> None:
    picture = tmp_path / "top.svg"
    options = ["--once", "--interval", "1.5", "--target", stack.stack.target, "--picture", str(picture)]
    with load(stack):
        done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    text = " ".join(done.stdout.replace("│", " ").split())
    assert "tiny LlamaForCausalLM, tp 1, sim" in text
    assert "SIMULATED" in text
    assert "running" in text
    assert "4 / 64" in text
    assert "batch 4, look-ahead 1" in text
    assert "T1 schedule --" not in text
    assert "\x1b" not in done.stdout  # nothing but text where there is no terminal
    ET.fromstring(picture.read_text(encoding="utf-8"))


def test_without_a_gateway_a_frame_says_so_and_fails(tmp_path: Path) -> None:
    options = ["--once", "--interval", "0.2", "--target", "127.0.0.1:1"]
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "unavailable: UNAVAILABLE: " in done.stdout
    assert "Traceback" not in done.stderr


def test_a_picture_is_an_svg_or_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--picture", "top.png"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "--picture" in done.stderr


def test_on_a_terminal_it_is_live_until_interrupted(stack: Running) -> None:
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "40"}
    process = subprocess.Popen(
        [*COMMAND, "--interval", "0.2", "--target", stack.stack.target],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
    )
    os.close(slave)
    seen, interrupted, deadline = b"", False, time.monotonic() + 30
    with load(stack), open(master, "rb", buffering=0) as screen:
        while time.monotonic() < deadline and select.select([screen], [], [], 10)[0]:
            try:
                seen += screen.read(65536) or b""
            except OSError:  # its end of the terminal is closed
                break
            if not interrupted and seen.count(b"T1 schedule") >= 4 and b"batch 4" in seen:
                process.send_signal(signal.SIGINT)
                interrupted = True
        assert process.wait(timeout=10) == 0
    assert interrupted
    assert seen.count(b"\x1b[?1049h") == seen.count(b"\x1b[?1049l") == 1  # the screen as it was before
    assert b"Traceback" not in seen


def test_too_many_watchers_are_reported_together_with_the_load(stack: Running) -> None:
    calls = [stack.control.WatchSteps(control.WatchStepsRequest()) for _ in range(MAX_WATCHERS + 1)]
    try:
        wait_for(lambda: sum(call.done() for call in calls) == 1, 10, "as many may watch as want to")
        with Collector(stack.stack.target) as collector:
            views: list[View] = []

            def reported() -> bool:
                views.append(collector.view())
                return bool(views[-1].problem)

            wait_for(reported, 10, "no problem is reported")
    finally:
        for call in calls:
            call.cancel()
    assert views[-1].problem == f"RESOURCE_EXHAUSTED: {MAX_WATCHERS} clients watch already"
    assert views[-1].load is not None


@pytest.mark.slow
def test_a_gateway_that_dies_is_waited_for(stack: Running) -> None:
    views: list[View] = []

    def seen(unavailable: bool, steps: bool = False) -> bool:
        views.append(collector.view())
        latest = views[-1]
        return bool(latest.problem) == unavailable and (latest.steps.steps > 0 or not steps)

    with Collector(stack.stack.target) as collector:
        with load(stack):
            wait_for(lambda: seen(False, steps=True), 20, "no steps are seen")
        [pid] = stack.stack.units["gateway"].pids
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: seen(True), 10, "its death is not seen")
        assert views[-1].problem.startswith("UNAVAILABLE: ")
        assert views[-1].load is None
        wait_for(lambda: seen(False), 40, "its successor is not found")
        with load(stack):
            wait_for(lambda: seen(False, steps=True), 40, "the steps of its successor are not seen")
    assert views[-1].load is not None
