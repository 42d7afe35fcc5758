"""A group of the bench: reads plans, waits as long as the step takes, appends a result of random tokens."""

from __future__ import annotations

import random
from dataclasses import dataclass

from albireo.contract import codec, result_rows
from albireo.contract.keys import Keys
from albireo.contract.plan import GroupShape, Plan, StepResult
from albireo.store.interface import EntryId
from albireo.v1 import log_pb2 as log
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from albireo.virtual.store import MemoryStore
from bench.plan_cost import StandIn

TTL_SECONDS = 60.0
BEAT_SECONDS = 1.0
READ_SECONDS = 1.0
KEEP = 64


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a step takes, in seconds: the same for any number of rows, and more for each prompt token."""

    step: float
    token: float


class Listener:
    """What the groups report to the load, in seconds of the clock."""

    def first_token(self, name: str, group: str, cached: int) -> None:
        """The first token of a request was brought by a group that had ``cached`` tokens of its prompt."""

    def ended(self, name: str, group: str, tokens: int) -> None:
        """A request has brought its last token."""


class TimedGroup:
    """One life of one rank. ``start`` runs it in two actors for as long as the clock goes on."""

    def __init__(
        self,
        clock: VirtualClock,
        space: Keyspace,
        keys: Keys,
        name: str,
        shape: GroupShape,
        pace: Pace,
        listener: Listener,
    ) -> None:
        self.name = name
        self.steps = 0
        self.rows = 0
        self._clock = clock
        self._keys = keys
        self._pace = pace
        self._listener = listener
        self._store = MemoryStore(space, keys)
        self._worker = StandIn(random.Random(name), stop_share=0.0)
        self._requests: dict[int, tuple[str, int, int]] = {}  # by incarnation: name, outputs so far, cached
        self._info = log.GroupInfo(
            incarnation=f"life-of-{name}",
            name=name,
            num_blocks=shape.num_blocks,
            max_seqs=shape.max_seqs,
            max_model_len=shape.max_model_len,
            tp=1,
            device="sim",
            vocab_size=32_000,
            fingerprint="bench",
            step_seconds=pace.step,
            prefill_token_seconds=pace.token,
        )

    def start(self) -> None:
        self._clock.start(f"{self.name} beats", self._beat)
        self._clock.start(self.name, self._serve)

    def _beat(self) -> None:
        keys, incarnation = self._keys, self._info.incarnation
        data = self._info.SerializeToString()
        self._store.lease(keys.group(incarnation), data, ttl=TTL_SECONDS).acquire()
        self._store.register(incarnation)
        count = 0
        while True:
            count += 1
            beat = log.RankBeat(count=count, stage=log.RANK_STAGE_COMPUTING)
            self._store.announce(keys.rank(incarnation, 0), beat.SerializeToString(), ttl=TTL_SECONDS)
            self._store.announce(keys.group(incarnation), data, ttl=TTL_SECONDS)
            self._clock.sleep(BEAT_SECONDS)

    def _serve(self) -> None:
        plans = self._store.log(self._keys.plans(self._info.incarnation))
        results = self._store.log(self._keys.results(self._info.incarnation), keep=KEEP)
        after = plans.last()
        while True:
            for raw_id, data in plans.read(after, READ_SECONDS):
                after = raw_id.decode()
                entry_id, entry = EntryId.parse(raw_id), log.PlanEntry.FromString(data)
                if entry.WhichOneof("entry") == "plan":
                    plan = codec.plan_from_proto(entry_id.epoch, entry_id.step, entry.plan)
                    results.append(entry_id, self._run(plan, entry.plan))

    def _run(self, plan: Plan, message: log.Plan) -> bytes:
        """One step, in its time."""
        prefill = sum(chunk.count for chunk in plan.chunks)
        began = self._clock.time_ns()
        self._clock.sleep(self._pace.step + prefill * self._pace.token)
        ended = self._clock.time_ns()
        result = self._worker.run(plan)
        entry = log.ResultEntry()
        message_out = entry.result
        columns = result_rows.columns(result.slots, result.incarnations, result.ids, result.finishes)
        for name, value in columns.items():
            setattr(message_out, name, value)
        message_out.decodes, message_out.prefill_tokens = plan.num_decodes, prefill
        message_out.ended.extend(codec.ended_to_proto(plan.ended))
        message_out.timing.CopyFrom(message.timing)
        message_out.timing.fetched = message_out.timing.staged = message_out.timing.forward_begin = began
        message_out.timing.sampling_begin = message_out.timing.sampling_end = ended
        self._report(plan, result)
        return entry.SerializeToString()

    def _report(self, plan: Plan, result: StepResult) -> None:
        self.steps += 1
        self.rows += len(result.ids)
        for admission in plan.admissions:
            self._requests[admission.incarnation] = (
                admission.request_id,
                admission.num_outputs,
                admission.num_cached,
            )
        for incarnation, finish in zip(result.incarnations, result.finishes, strict=True):
            name, outputs, cached = self._requests[incarnation]
            self._requests[incarnation] = name, outputs + 1, cached
            if not outputs:
                self._listener.first_token(name, self.name, cached)
            if finish:
                del self._requests[incarnation]
                self._listener.ended(name, self.name, outputs + 1)
