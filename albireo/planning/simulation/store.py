"""The store of a simulated group: scheduler and rank 0 spend the host's time before they append.

A plan is in the log T1 after the scheduler began with it, a result T5 after rank 0 did, by the cost model.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.contract.keys import Keys
from albireo.planning.simulation.step_table import StepTable
from albireo.runtime.clock import Clock
from albireo.store.interface import EntryId
from albireo.v1 import log_pb2 as log
from albireo.virtual.keyspace import Keyspace
from albireo.virtual.store import MemoryLog, MemoryStore
from worker_svc.cost.interface import CostModel


class KvUse:
    """How many KV blocks slots hold over time."""

    def __init__(self) -> None:
        self.changes: list[tuple[float, int]] = []  # from when, by the clock, and blocks

    def change(self, used: int, now: float) -> None:
        """From ``now`` on, ``used`` blocks are held."""
        self.changes.append((now, used))

    @property
    def peak(self) -> int:
        return max((used for _, used in self.changes), default=0)

    def block_seconds(self, end: float) -> float:
        """The integral until ``end``."""
        ends = [*(since for since, _ in self.changes), end][1:]
        return sum(used * (to - since) for (since, used), to in zip(self.changes, ends, strict=True))


@dataclass(frozen=True, slots=True)
class SimulatedHost:
    """What the logs of one group need: the costs, the clock by which they are spent, and the steps."""

    cost: CostModel
    clock: Clock
    table: StepTable
    kv: KvUse


class HostStore(MemoryStore):
    """As :class:`MemoryStore`, but the plan and results logs of one group take the host's time to append."""

    def __init__(self, space: Keyspace, keys: Keys, group: str, host: SimulatedHost) -> None:
        """``group``: its incarnation."""
        super().__init__(space, keys)
        self._plans = keys.plans(group)
        self._results = keys.results(group)
        self._host = host

    def log(self, key: str, *, keep: int = 0) -> MemoryLog:
        if keep and key == self._plans:
            return PlanLog(self._space, key, keep, self._host)
        if keep and key == self._results:
            return ResultsLog(self._space, key, keep, self._host)
        return super().log(key, keep=keep)


class PlanLog(MemoryLog):
    """The scheduler's: each plan is counted, and takes T1."""

    def __init__(self, space: Keyspace, key: str, keep: int, host: SimulatedHost) -> None:
        super().__init__(space, key, keep)
        self._host = host

    def append(self, entry_id: EntryId, data: bytes) -> None:
        host = self._host
        step = host.table.apply(entry_id, log.PlanEntry.FromString(data).plan)
        if seconds := step.host.t1:
            host.clock.sleep(seconds)
        super().append(entry_id, data)
        host.kv.change(host.table.blocks_used, host.clock.now())


class ResultsLog(MemoryLog):
    """Rank 0's: each result takes T5, and ends its step."""

    def __init__(self, space: Keyspace, key: str, keep: int, host: SimulatedHost) -> None:
        super().__init__(space, key, keep)
        self._host = host

    def append(self, entry_id: EntryId, data: bytes) -> None:
        host = self._host
        if seconds := host.table.steps.pop(entry_id).host.t5:
            host.clock.sleep(seconds)
        super().append(entry_id, data)
