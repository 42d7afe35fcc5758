"""Polls a gateway and follows its steps, for ``albireo top``; continues when the gateway comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc

from albireo.client import Client, describe
from albireo.runtime.access import ANYONE, Access
from albireo.tools.top.recent import Figures, RecentSteps
from albireo.tools.top.tier_rates import Blocks, Key, TierRates
from albireo.v1 import control_pb2 as control

CALL_SECONDS = 2.0
LONGEST_PAUSE = 8.0
"""Seconds between two attempts, at most: each failure doubles them."""


@dataclass(frozen=True, slots=True)
class View:
    """Everything that one frame shows. None: not known, or not at present."""

    target: str
    server: control.ServerInfo | None
    model: control.ModelInfo | None  # as the last group that joined has it
    load: control.Load | None
    steps: Figures
    tier_rates: Mapping[Key, Blocks]
    problem: str  # why something is missing; empty where nothing is


class Pause:
    """Seconds until the next attempt."""

    def __init__(self, first: float) -> None:
        self._first = self._next = first

    def reset(self) -> None:
        self._next = self._first

    def take(self) -> float:
        taken, self._next = self._next, min(2 * self._next, LONGEST_PAUSE)
        return taken


class Collector:
    """A context manager. ``view`` is called from the command's thread; another thread receives the steps."""

    def __init__(self, target: str, model: str = "", access: Access = ANYONE) -> None:
        """``model``: the name of the model; empty: that of the gateway's ``--model``, or the only one."""
        self._target = target
        self._name = model
        self._client = Client(target, access)
        self._lock = threading.Lock()
        self._recent = RecentSteps(time.monotonic())
        self._watch_problem = ""
        self._call: Any = None
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="steps", daemon=True)
        self._server: control.ServerInfo | None = None
        self._model: control.ModelInfo | None = None
        self._load: control.Load | None = None
        self._tier_rates = TierRates()
        self._problem = ""
        self._pause = Pause(0.5)
        self._next_poll = 0.0

    def __enter__(self) -> Self:
        self._client.__enter__()
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        with self._lock:
            if self._call is not None:
                self._call.cancel()
        self._watcher.join(timeout=5)
        self._client.__exit__(kind, error, trace)

    def view(self) -> View:
        """The present view. Polls the gateway unless the last poll has just failed; a few seconds at most."""
        if time.monotonic() >= self._next_poll:
            self._poll()
        now = time.monotonic()
        with self._lock:
            self._recent.sample(now)
            # A call that is active is no problem: where no request runs there are no steps.
            watched = self._call is not None and self._call.is_active()
            problem = self._problem or ("" if watched else self._watch_problem)
            steps = self._recent.figures(now)
        rates = self._tier_rates.rates()
        return View(self._target, self._server, self._model, self._load, steps, rates, problem)

    def _poll(self) -> None:
        try:
            self._server = self._client.server_info(timeout=CALL_SECONDS)
            self._load = self._client.load(self._name, timeout=CALL_SECONDS)
            self._tier_rates.push(self._load, time.monotonic())
            self._model = self._client.model_info(self._name, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            self._load, self._problem = None, describe(error)
            self._next_poll = time.monotonic() + self._pause.take()
        else:
            self._problem = ""
            self._pause.reset()

    def _watch(self) -> None:
        pause = Pause(0.5)
        while not self._stop.is_set():
            with self._lock:
                call = self._call = self._client.watch_steps(self._name)
            if self._stop.is_set():  # set after the check above: __exit__ has not seen this call
                call.cancel()
            try:
                for record in call:
                    with self._lock:
                        self._recent.push(record, time.monotonic())
                    pause.reset()
                problem = "the gateway ended the list of steps"
            except grpc.RpcError as error:
                problem = describe(error)
            with self._lock:
                self._watch_problem = problem
            self._stop.wait(pause.take())
