"""The clients of a simulated group: they submit through a gateway's submitter and follow the results log.

One event loop runs both, in virtual time. Times are in seconds from the begin of the run.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterable

from albireo.contract.bounds import MAX_DEADLINE_SECONDS
from albireo.contract.keys import Keys
from albireo.contract.plan import DEFAULT_TENANT, Finish, SamplingParams
from albireo.contract.result_rows import ends_of, incarnations_of
from albireo.planning.result import RequestTimes
from albireo.planning.simulation.prompts import Prompts
from albireo.planning.simulation.step_sums import StepSums
from albireo.planning.workload import SAMPLING_OPTIONS, Workload
from albireo.store.interface import EntryId
from albireo.v1 import log_pb2 as log
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from gateway.calls.refusal import Refusal
from gateway.requests.submission import Submitter
from gateway.requests.validation import ValidRequest
from gateway.store.interface import Position
from gateway.store.memory_store import MemoryGatewayStore

GATEWAY = "simulated"


class Clients:
    """Runs one workload. ``sums`` folds the steps; ``on_progress`` gets requests that ended, and all."""

    def __init__(
        self,
        clock: VirtualClock,
        space: Keyspace,
        keys: Keys,
        workload: Workload,
        max_queue: int,
        gateway_seconds: float,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._clock = clock
        self._workload = workload
        self._prompts = Prompts(workload)
        self._store = MemoryGatewayStore(space, keys, GATEWAY)
        numbers = itertools.count()
        self._submitter = Submitter(
            self._store,
            clock,
            max_queue=max_queue,
            record_seconds=2 * MAX_DEADLINE_SECONDS,
            new_suffix=lambda: str(next(numbers)),
        )
        self._on_progress = on_progress
        self._began = 0.0
        self._gateway_seconds = gateway_seconds
        self._gateway_free = 0.0  # when it can take the next request
        self._first_turns = deque(workload.first_turns)  # that are still to be sent
        self._next_turns = workload.next_turns
        self._left = len(workload.requests)  # to end
        self._all_ended = asyncio.Event()
        self._by_name: dict[str, int] = {}  # index of a live request
        self._by_incarnation: dict[int, int] = {}
        self._admitted: set[int] = set()  # indexes, and those that have had a token
        self._started: set[int] = set()
        self._without_token: set[int] = set()  # incarnations that have had none
        self.times: list[RequestTimes] = [RequestTimes(sent=0.0) for _ in workload.requests]
        self.sums = StepSums()
        self.preemptions = 0

    async def run(self) -> None:
        """Sends all requests, and returns once the last has ended."""
        self._began = self._clock.now()
        if not self._left:
            return
        await self._store.start_heartbeat(float("inf"))
        reader = self._clock.start_task("results", self._read(await self._store.position()))
        if self._workload.concurrency:
            for _ in range(min(self._workload.concurrency, len(self._first_turns))):
                self._send_next()
        else:
            self._clock.start_task("arrivals", self._arrive())
        await self._all_ended.wait()
        reader.cancel()
        self.sums.close()

    def now(self) -> float:
        return self._clock.now() - self._began

    async def _arrive(self) -> None:
        while self._first_turns:
            wait = self._workload.requests[self._first_turns[0]].at - self.now()
            if wait > 0:
                await asyncio.sleep(wait)
            self._send_next()

    def _send_next(self) -> None:
        self._clock.loop.call_soon(self._reach_gateway, self._first_turns.popleft())

    def _reach_gateway(self, index: int) -> None:
        """One gateway takes requests one after another: those that are sent at once do not come at once."""
        now = self.now()
        self.times[index].sent = now
        self._gateway_free = max(self._gateway_free, now) + self._gateway_seconds
        self._clock.loop.call_later(
            self._gateway_free - now, lambda: self._clock.start_task("submission", self._submit(index))
        )

    async def _submit(self, index: int) -> None:
        request, seed = self._workload.requests[index], self._workload.seed + index
        sampling = SamplingParams(
            request.outputs, seed % 2**64, ignore_eos=True, **SAMPLING_OPTIONS[self._workload.sampling]
        )
        valid = ValidRequest(
            f"r{index}", self._prompts.of(index), sampling, stops=(), priority=0, n=1, tenant=DEFAULT_TENANT
        )
        name = self._submitter.new_name(valid.request_id)
        self._by_name[name] = index
        try:
            await self._submitter.submit(valid, name, "", MAX_DEADLINE_SECONDS)
        except Refusal as refusal:
            self._end(index, refusal.message)

    async def _read(self, after: Position) -> None:
        while True:
            entries = await self._store.read(after, float("inf"))
            notices = after.notices
            for group, found in entries.results.items():
                for raw_id, data in found:
                    after.groups[group] = entry_id = EntryId.parse(raw_id)
                    self._take(entry_id.step, log.ResultEntry.FromString(data).result)
            for raw_id, data in entries.notices:
                notices = EntryId.parse(raw_id)
                self._end_all(log.Notice.FromString(data).ended.ended)
            after = Position(notices, after.groups)

    def _take(self, step: int, result: log.StepResult) -> None:
        """Looks only at what changes: rows that go on are many, and tell nothing."""
        self.sums.add(step, result, self._clock.time_ns())
        for admitted in result.admitted:
            index = self._by_name[admitted.request_id]
            self._by_incarnation[admitted.incarnation] = index
            self._without_token.add(admitted.incarnation)
            self.preemptions += index in self._admitted
            self._admitted.add(index)
        if self._without_token:
            self._note_first_tokens(result)
        for incarnation, finish in ends_of(result):
            self._finish(self._by_incarnation.pop(incarnation), Finish(finish))
        self._end_all(result.ended)

    def _end_all(self, found: Iterable[log.Ended]) -> None:
        """The scheduler has ended these requests."""
        for ended in found:
            if ended.request_id in self._by_name:
                self._end(self._by_name[ended.request_id], Finish(ended.reason).name)

    def _note_first_tokens(self, result: log.StepResult) -> None:
        for incarnation in self._without_token.intersection(incarnations_of(result)):
            self._without_token.discard(incarnation)
            index = self._by_incarnation[incarnation]
            if index not in self._started:
                self._started.add(index)
                self.times[index].first = self.now()

    def _finish(self, index: int, finish: Finish) -> None:
        if finish is Finish.LENGTH:
            self.times[index].tokens = self._workload.requests[index].outputs
            self._end(index)
        else:
            self._end(index, finish.name)

    def _end(self, index: int, error: str = "") -> None:
        times = self.times[index]
        times.ended, times.error = self.now(), error
        self._left -= 1
        if self._on_progress is not None:
            self._on_progress(len(self.times) - self._left, len(self.times))
        if not self._left:
            self._all_ended.set()
        elif (after := self._next_turns.get(index)) is not None:
            think = self._workload.requests[after].think
            self._clock.loop.call_later(think, self._reach_gateway, after)
        elif self._workload.concurrency and self._first_turns:
            self._send_next()
