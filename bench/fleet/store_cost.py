"""CPU time that the scheduler spends on Redis for one step: a plan appended, a result read."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from albireo.contract.keys import Keys
from albireo.local.redis_server import LocalRedis
from albireo.store.interface import EntryId, GroupOpening
from albireo.store.redis_store import RedisStore

ENTRIES = 4000
ENTRY = bytes(600)
"""About as large as a plan or a result of 128 rows."""


def store_cost() -> tuple[float, float]:
    """Seconds of CPU time, and seconds, of an append and a read of one entry, with a Redis of our own."""
    keys = Keys("bench")
    with tempfile.TemporaryDirectory() as directory:
        server = LocalRedis(Path(directory))
        try:
            store = RedisStore.open(server.url, keys)
            store.lease(keys.lease, b"bench", ttl=60).acquire()
            epoch, _ = store.open_epoch(lease_value=b"bench")
            store.open_group(GroupOpening(epoch, "g", "g"), notice=1, lease_value=b"bench")
            plans, after = store.log(keys.plans("g"), keep=1000), f"{epoch}-0"
            cpu, began = time.process_time(), time.perf_counter()
            for step in range(1, ENTRIES + 1):
                plans.append(EntryId(epoch, step), ENTRY)
                [(entry_id, _)] = plans.read(after, 0)
                after = entry_id.decode()
            return (time.process_time() - cpu) / ENTRIES, (time.perf_counter() - began) / ENTRIES
        finally:
            server.stop()
