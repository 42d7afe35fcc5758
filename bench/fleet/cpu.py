"""CPU time of one actor of a virtual clock: what passes from each switch to it until the switch away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import greenlet


class ActorTime:
    """Counts while ``counting`` is open. The actor is known by the greenlet in which ``mark`` was called."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._actor: greenlet.greenlet | None = None
        self._since: float | None = None

    def mark(self) -> None:
        """The calling actor is the one whose time counts."""
        self._actor = greenlet.getcurrent()

    @contextmanager
    def counting(self) -> Iterator[None]:
        before = greenlet.settrace(self._on_switch)
        try:
            yield
        finally:
            greenlet.settrace(before)

    def _on_switch(self, event: str, switch: tuple[greenlet.greenlet, greenlet.greenlet]) -> None:
        origin, target = switch
        now = time.process_time()
        if origin is self._actor and self._since is not None:
            self.seconds += now - self._since
            self._since = None
        if target is self._actor:
            self._since = now
