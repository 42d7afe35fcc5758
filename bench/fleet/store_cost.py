"""CPU time that the scheduler spends on Redis for one step of one group: a plan appended, a result read."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from albireo.contract.keys import Keys
from albireo.local.redis_server import LocalRedis
from albireo.store.interface import EntryId, GroupOpening, NewEntry
from albireo.store.redis_store import RedisStore
from scheduler_svc.publishing import PLANS_A_ROUND_TRIP

ENTRIES = 4000
ENTRY = bytes(600)
"""About as large as a plan or a result of 128 rows."""


def store_cost(groups: int) -> tuple[float, float]:
    """Seconds of CPU time, and seconds, of an append and a read of one entry, with a Redis of our own, where
    each turn has one of each group."""
    keys = Keys("bench")
    with tempfile.TemporaryDirectory() as directory:
        server = LocalRedis(Path(directory))
        try:
            store = RedisStore.open(server.url, keys)
            store.lease(keys.lease, b"bench", ttl=60).acquire()
            epoch, _ = store.open_epoch(lease_value=b"bench")
            for number in range(groups):
                opening = GroupOpening(epoch, f"g{number}", f"g{number}")
                store.open_group(opening, notice=number + 1, lease_value=b"bench")
            after = {keys.plans(f"g{number}"): f"{epoch}-0" for number in range(groups)}
            turns = ENTRIES // groups
            cpu, began = time.process_time(), time.perf_counter()
            for step in range(1, turns + 1):
                entries = [NewEntry(key, EntryId(epoch, step), ENTRY) for key in after]
                for first in range(0, groups, PLANS_A_ROUND_TRIP):
                    store.append_all(entries[first : first + PLANS_A_ROUND_TRIP], keep=1000)
                for key, [(entry_id, _)] in store.read(after, 0).items():
                    after[key] = entry_id.decode()
            each = turns * groups
            return (time.process_time() - cpu) / each, (time.perf_counter() - began) / each
        finally:
            server.stop()
