"""Logs that a test writes, and a store that hands them to a gateway in portions that the test chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import cast

from albireo.contract import codec, result_rows
from albireo.contract.plan import Finish
from albireo.runtime.clock import SYSTEM_CLOCK
from albireo.store.interface import LAST_STEP, EntryId
from albireo.v1 import control_pb2 as control
from albireo.v1 import inference_pb2 as api
from albireo.v1 import log_pb2 as log
from gateway.store.heartbeat import Heartbeat
from gateway.store.interface import Entries, GatewayStore, Position
from gateway.streams.results_reader import ResultsReader
from gateway.streams.router import Router

NOTICES = ""
"""Name of the notices among the logs; those of groups have their incarnations."""
EPOCH = 1

Counts = dict[str, int]
"""How many entries of each log have been written, or may be read."""


@dataclass
class Row:
    """One row of a step's result."""

    incarnation: int
    token: int
    finish: Finish = Finish.NONE
    logprob: float | None = None


@dataclass
class Logs:
    """The notices, and the results of groups. ``written`` has the counts after each entry."""

    entries: dict[str, list[tuple[EntryId, bytes]]] = field(default_factory=lambda: {NOTICES: []})
    written: list[Counts] = field(default_factory=list)

    def open_epoch(self) -> None:
        self._notify(log.Notice(open=log.EpochOpen(epoch=EPOCH)))

    def open_group(self, group: str) -> None:
        opening = log.GroupOpen(epoch=EPOCH, group=group, name=group.upper())
        self._append(group, EntryId(EPOCH, 0), log.ResultEntry(open=opening).SerializeToString())
        self._notify(log.Notice(group_open=opening))

    def close_group(self, group: str) -> None:
        close = log.ResultEntry(close=log.GroupClose(reason="died"))
        self._append(group, EntryId(EPOCH, LAST_STEP), close.SerializeToString())
        self._notify(log.Notice(group_closed=log.GroupClosed(group=group)))

    def step(
        self,
        group: str,
        rows: Iterable[Row] = (),
        *,
        admitted: Iterable[log.Admitted] = (),
        ended: Iterable[log.Ended] = (),
        unfetched: Iterable[int] = (),
    ) -> None:
        rows = list(rows)
        result = log.StepResult(
            admitted=admitted,
            **result_rows.columns(
                range(len(rows)),
                [row.incarnation for row in rows],
                [row.token for row in rows],
                [row.finish for row in rows],
            ),
            logprobs=[
                log.RowLogprobs(row=index, logprobs=api.TokenLogprobs(logprob=row.logprob))
                for index, row in enumerate(rows)
                if row.logprob is not None
            ],
            ended=ended,
            unfetched=unfetched,
        )
        entry_id = EntryId(EPOCH, self.entries[group][-1][0].step + 1)
        self._append(group, entry_id, log.ResultEntry(result=result).SerializeToString())

    def end_waiting(self, name: str, reason: Finish, num_outputs: int) -> None:
        ended = log.Ended(request_id=name, reason=codec.finish_name(reason), num_outputs=num_outputs)
        self._notify(log.Notice(ended=log.WaitingEnded(ended=[ended])))

    def _notify(self, notice: log.Notice) -> None:
        self._append(NOTICES, EntryId(EPOCH, len(self.entries[NOTICES])), notice.SerializeToString())

    def _append(self, name: str, entry_id: EntryId, data: bytes) -> None:
        self.entries.setdefault(name, []).append((entry_id, data))
        self.written.append({log_name: len(found) for log_name, found in self.entries.items()})


class ScriptedStore:
    """Answers each read with what of the logs ``portions`` says, in turn; after the last one with all.

    Results that end behind a notice that was read before are readable to their end.
    """

    gateway_id = "gateway"

    def __init__(self, logs: Logs, portions: Iterable[Counts], on_end: Callable[[], None]) -> None:
        """``on_end`` is called when all has been read."""
        self._logs = logs
        self._portions = iter(portions)
        self._on_end = on_end

    async def position(self) -> Position:
        return Position(EntryId(0, 0), {})

    async def read(self, after: Position, wait: float) -> Entries:
        portion = next(self._portions, None)
        notices = self._portion(NOTICES, after.notices, portion)
        results = {group: self._portion(group, last, portion) for group, last in after.groups.items()}
        for group in after.groups:
            if portion is not None and self._announced_end(group, after.notices):
                results[group] = self._portion(group, after.groups[group], None)
        if portion is None and not notices and not any(results.values()):
            self._on_end()
        return Entries({group: found for group, found in results.items() if found}, notices)

    async def load(self) -> bytes:
        return control.Load().SerializeToString()

    async def start_heartbeat(self, ttl: float) -> None:
        """There is nothing that expires."""

    def _portion(self, name: str, after: EntryId, portion: Counts | None) -> list[tuple[bytes, bytes]]:
        found = self._logs.entries[name]
        count = len(found) if portion is None else portion.get(name, 0)
        return [(str(entry_id).encode(), data) for entry_id, data in found[:count] if entry_id > after]

    def _announced_end(self, group: str, last: EntryId) -> bool:
        read = [log.Notice.FromString(data) for found, data in self._logs.entries[NOTICES] if found <= last]
        return any(notice.group_closed.group == group for notice in read)


async def read_all(logs: Logs, portions: Iterable[Counts], router: Router) -> list[tuple[str, EntryId]]:
    """Has a results reader pass the logs to ``router`` in these portions. Returns the steps that it saw."""
    steps: list[tuple[str, EntryId]] = []
    store = cast("GatewayStore", ScriptedStore(logs, portions, lambda: reader.stop()))
    heartbeat = Heartbeat(store, SYSTEM_CLOCK)
    reader = ResultsReader(
        store, SYSTEM_CLOCK, router, heartbeat, lambda group, entry_id, *_: steps.append((group, entry_id))
    )
    await heartbeat.start()
    await reader.run()
    return steps
