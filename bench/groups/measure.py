"""One run: an undisturbed reference, then the same streams while groups are killed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

from albireo.local.stack import Stack
from bench.groups.deaths import Death, kill_in_turn
from bench.groups.streams import make_requests, run_once, run_until
from bench.groups.whereabouts import Whereabouts
from bench.stack import running_stack
from bench.streams import Received

TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Found:
    """What a run has brought."""

    reference: Sequence[Received]
    streams: Sequence[Received]
    deaths: Sequence[Death]
    groups: Mapping[str, Sequence[tuple[float, str]]]  # by request id: when it was admitted, to which group


def measure(
    options: Mapping[str, Any],
    *,
    streams: int,
    outputs: int,
    seconds: float,
    every: float,
    on_progress: Callable[[str], None],
) -> Found:
    """``options``: fields of StackSettings; ``every``: seconds from one kill to the next. Raises what
    ``running_stack`` raises, and GaveUp where a group does not come back."""
    requests = make_requests(streams, outputs)
    with running_stack(options) as stack, _supervised(stack):
        on_progress("undisturbed")
        reference = asyncio.run(run_once(stack.target, requests, TIMEOUT_SECONDS))
        deaths: list[Death] = []
        with Whereabouts(stack.address, stack.model_name) as whereabouts:
            until = time.monotonic() + seconds
            ended = count(1)

            def on_done(_: Received) -> None:
                on_progress(f"{len(deaths)} deaths, {next(ended)} streams have ended")

            async def run() -> list[Received]:
                killing = asyncio.create_task(kill_in_turn(stack, every, until, deaths))
                try:
                    return await run_until(
                        stack.target, requests, until, timeout=TIMEOUT_SECONDS, on_done=on_done
                    )
                finally:
                    killing.cancel()

            found = asyncio.run(run())
            groups = {received.request_id: whereabouts.admitted[received.request_id] for received in found}
    return Found(reference, found, deaths, groups)


@contextmanager
def _supervised(stack: Stack) -> Iterator[None]:
    """Groups that die are started again meanwhile. Raises GaveUp and StackError at its end."""
    stop = threading.Event()
    with ThreadPoolExecutor(1, "supervisor") as pool:
        watching = pool.submit(stack.watch, stop)
        try:
            yield
        finally:
            stop.set()
        watching.result(30)
