"""What every service process needs: a stop signal, a frozen heap, and a health endpoint."""

from __future__ import annotations

import ctypes
import gc
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Protocol

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from albireo.runtime.health_service import HealthServicer, Statuses

LIVE = "live"
"""Name of the health service that is always SERVING while the process answers: for liveness probes."""
MAX_WATCHERS = 4
OBJECTS_TO_COLLECT = 500_000
"""About as many as 40 000 requests hold; if all of them are unreachable, 100 MB."""
SWITCH_SECONDS = 50e-6
"""Python lets a thread keep the interpreter for 5 ms by default, which is longer than a small step."""


def end(process: subprocess.Popen[bytes], *, seconds: float = 10.0) -> None:
    """SIGTERM, and SIGKILL where the process still runs after ``seconds``."""
    process.terminate()
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=5)


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM, SIGINT or a closed terminal sets. Call from the main thread."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    return stop


def freeze_heap() -> None:
    """Call once everything is loaded: the garbage collector skips all objects that exist now.

    A full collection otherwise walks all modules, torch's among them, in the middle of some step.
    """
    gc.collect()
    gc.freeze()


def collect_rarely() -> None:
    """Call in a process where references alone free what is no longer used: the garbage collector then runs
    only where there are ``OBJECTS_TO_COLLECT`` more objects than after it ran last.

    A full collection walks all that live requests hold: a scheduler with 64 groups stands still for 0.4 s.
    """
    gc.set_threshold(OBJECTS_TO_COLLECT)


def give_memory_back() -> None:
    """Returns memory to the system: unreachable cycles, and what the C library's allocator keeps (glibc
    only). Takes a few milliseconds."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def switch_quickly() -> None:
    """Lets threads of this interpreter take turns quickly: those that serve and those that export."""
    sys.setswitchinterval(min(SWITCH_SECONDS, sys.getswitchinterval()))


class Serving(Protocol):
    """Where a service says whether it serves: its health endpoint."""

    def set(self, *, serving: bool) -> None: ...


class HealthServer:
    """``grpc.health.v1`` (Check and Watch) and reflection on a port of their own; not serving at first."""

    def __init__(self, host: str, port: int) -> None:
        """Raises OSError when the address cannot be bound. Port 0 takes a free one."""
        self._statuses = Statuses(watchers=MAX_WATCHERS)
        # Without this option a second process could share the port unnoticed.
        self._server = grpc.server(
            # A watcher occupies a thread; as many threads are left for calls of Check.
            ThreadPoolExecutor(max_workers=2 * MAX_WATCHERS),
            maximum_concurrent_rpcs=64,
            options=[("grpc.so_reuseport", 0)],
        )
        health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(self._statuses), self._server)
        names = (health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        try:
            self.port = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise OSError(f"cannot listen on {host}:{port}: {error}") from error
        self.set(serving=False)
        self._statuses.set(LIVE, serving=True)
        self._server.start()

    def set(self, *, serving: bool) -> None:
        """Sets the status of the whole service. Never blocks."""
        self._statuses.set("", serving=serving)

    def stop(self) -> None:
        self._statuses.stop()
        self._server.stop(grace=0.5).wait(timeout=2)
