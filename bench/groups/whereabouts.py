"""On which group each request ran, and when: read from the results logs in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from typing import Self

from albireo.contract import codec
from albireo.contract.keys import Keys
from albireo.contract.plan import public_name
from albireo.store.interface import LogEntry
from albireo.store.redis_store import RedisStore
from albireo.v1 import log_pb2 as log

READ_SECONDS = 0.2


class Whereabouts:
    """A context manager; it follows the notices and all results logs while it is open."""

    def __init__(self, address: str, model: str) -> None:
        """``address``: of Redis."""
        self._keys = Keys(model)
        self._store = RedisStore.open(address, self._keys)
        self._positions = {self._keys.notices: self._store.log(self._keys.notices).last()}
        for incarnation in self._store.groups():
            key = self._keys.results(incarnation)
            self._positions[key] = self._store.log(key).last()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="whereabouts", daemon=True)
        self.admitted: dict[str, list[tuple[float, str]]] = defaultdict(list)
        """By request id: when it was admitted, in seconds of ``time.monotonic``, and by which incarnation."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)
        self._store.close()

    def _follow(self) -> None:
        while not self._stop.is_set():
            for key, entries in self._store.read(self._positions, READ_SECONDS).items():
                self._positions[key] = entries[-1][0].decode()
                if key == self._keys.notices:
                    self._add_groups(entries)
                else:
                    self._note(key, entries)

    def _add_groups(self, entries: list[LogEntry]) -> None:
        for entry_id, data in entries:
            notice = log.Notice.FromString(data)
            if notice.WhichOneof("entry") == "group_open":
                epoch = entry_id.decode().partition("-")[0]
                self._positions.setdefault(self._keys.results(notice.group_open.group), f"{epoch}-0")

    def _note(self, key: str, entries: list[LogEntry]) -> None:
        incarnation, now = key.rpartition(":")[2], time.monotonic()
        for _, data in entries:
            entry = codec.result_from_bytes(data)
            for admitted in entry.result.admitted:
                self.admitted[public_name(admitted.request_id)].append((now, incarnation))
