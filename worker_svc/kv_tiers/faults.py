"""What went wrong with a KV tier: counted for metrics, and logged now and then.

A fault costs a computation and nothing else, so it is no error of the rank; a broken disk has one for each
block, so not each has a line of its own.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from threading import Lock

LOG_SECONDS = 60.0
"""Between two lines about faults of one kind."""


class Faults:
    """Of one tier. Threads share it."""

    def __init__(self, logger: logging.Logger, name: str) -> None:
        self._logger, self._name = logger, name
        self._lock = Lock()
        self._counts: Counter[str] = Counter()
        self._logged: dict[str, tuple[float, int]] = {}  # by kind: when, and the count then

    @property
    def counts(self) -> dict[str, int]:
        """Blocks by kind of fault."""
        with self._lock:
            return dict(self._counts)

    def add(self, kind: str, detail: object, blocks: int = 1) -> None:
        """``kind``: a label of metrics; of a few."""
        now = time.monotonic()
        with self._lock:
            self._counts[kind] += blocks
            count = self._counts[kind]
            when, before = self._logged.get(kind, (float("-inf"), 0))
            if now - when < LOG_SECONDS:
                return
            self._logged[kind] = now, count
        self._logger.warning(
            "KV tier %s: %s: %s (%d blocks since the last such line); they are computed again",
            self._name,
            kind,
            detail,
            count - before,
        )
