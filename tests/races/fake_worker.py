"""A worker group that speaks only the logs and does what the test's script says.

It keeps the table of :mod:`tests.scheduler_svc.core.worker_model`, so every plan is held to its contract: KV
of the right tokens in the right blocks, whatever is reused when. What it samples, when it answers, and
whether it answers at all is up to the test.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from albireo.checkpoint.fingerprint import fingerprint
from albireo.contract import codec, result_rows
from albireo.contract.keys import Keys
from albireo.contract.plan import GroupShape, Plan, StepResult, public_name
from albireo.models import TINY
from albireo.runtime.clock import Clock
from albireo.store.interface import EntryId
from albireo.v1 import log_pb2 as log
from tests.races.cluster import POLL_SECONDS, Cluster
from tests.scheduler_svc.core.worker_model import EOS_IDS, VOCAB, Row, Worker

FOR_EVER = 600.0
"""A lease that outlives every test: the group stays announced without renewal."""


class Closed(Exception):
    """The logs of this group are closed; it says why."""


class Table(Worker):
    """Samples what the script has for a request, then what the model makes of its prefix."""

    def __init__(self, shape: GroupShape, script: Mapping[str, Sequence[int]]) -> None:
        super().__init__(shape)
        self._script = script

    def sample(self, row: Row, state: int) -> int:
        index, tokens = len(row.tokens) - row.num_prompt, self._script.get(public_name(row.request_id), ())
        # Rows after an end go on as if there had been none, as on a real device.
        return tokens[index] if index < len(tokens) else super().sample(row, state)


class FakeGroup:
    """One incarnation of a group, moved by hand: ``next_plan``, ``run``, ``append``."""

    def __init__(
        self,
        cluster: Cluster,
        keys: Keys,
        shape: GroupShape,
        *,
        script: Mapping[str, Sequence[int]] | None = None,
        **info: Any,
    ) -> None:
        """Announces itself and registers. ``script``: the first tokens of requests. ``info``: fields of the
        announcement that are not as usual. The lease is never renewed, and there are no heartbeats."""
        self._cluster = cluster
        self._clock = cluster.clock
        self.keys = keys
        self.shape = shape
        self.incarnation = uuid.uuid4().hex
        self.name = ""  # that the scheduler gave it
        self.epoch = 0
        self.plans_key, self.results_key = keys.plans(self.incarnation), keys.results(self.incarnation)
        self.table = Table(shape, script or {})
        self._script = script or {}
        self._fetched = 0  # the last step whose plan was read
        self._store = cluster.open_store(keys)
        self._plans = self._store.log(self.plans_key)
        self._after = "0-0"
        announcement = group_info(self.incarnation, shape, fingerprint(TINY))
        announcement.MergeFrom(log.GroupInfo(**info))
        self._announcement = announcement.SerializeToString()
        self.lease = self._store.lease(keys.group(self.incarnation), self._announcement, ttl=FOR_EVER)
        self.register()

    def register(self) -> None:
        """As a group does that no scheduler has led yet, again and again."""
        assert self.lease.acquire()
        self._store.register(self.incarnation)

    def stop_renewing(self, seconds: float) -> None:
        """The lease runs out after ``seconds``, as that of a group that is dead does."""
        self._store.lease(self.keys.group(self.incarnation), self._announcement, ttl=seconds).renew()

    def leave(self) -> None:
        """As a group does that drains: it takes no more work, and its scheduler closes it."""
        self._store.leave(self.incarnation)

    def beat(self, rank: int, beat: log.RankBeat) -> None:
        """Writes the heartbeat of a rank."""
        key = self.keys.rank(self.incarnation, rank)
        self._store.announce(key, beat.SerializeToString(), ttl=FOR_EVER)

    def wait_epoch(self, *, after: int = 0, seconds: float = 10) -> int:
        """Waits until an epoch beyond ``after`` begins for this group; what is left of the last is
        dropped."""
        deadline = self._clock.now() + seconds
        while self.epoch <= after:
            assert self._clock.now() < deadline, "no epoch began"
            self._read()
            self._clock.sleep(POLL_SECONDS)
        return self.epoch

    def wait_closed(self) -> None:
        """Reads on until the logs are closed."""
        with suppress(Closed):
            while True:
                self.next_plan(seconds=10)

    def next_plan(self, seconds: float = 5) -> Plan:
        """The next plan of the log, by its exact id. Raises Closed, and AssertionError where none comes."""
        plan = self.plan_within(seconds)
        assert plan is not None, f"no plan within {seconds} s"
        return plan

    def plan_within(self, seconds: float) -> Plan | None:
        """The next plan, or None where none comes."""
        deadline = self._clock.now() + seconds
        while (plan := self._read()) is None and self._clock.now() < deadline:
            self._clock.sleep(POLL_SECONDS)
        return plan

    def run(self, plan: Plan) -> StepResult:
        """Runs a step on the table; its result is not in the log yet."""
        return self.table.run(plan)

    def append(self, plan: Plan, result: StepResult) -> None:
        """Publishes the result."""
        assert not self.refused(plan, result), f"the result of {plan.epoch}-{plan.step} is refused"

    def answer(self, plan: Plan) -> StepResult:
        """Runs a step and publishes its result at once."""
        result = self.run(plan)
        self.append(plan, result)
        return result

    def refused(self, plan: Plan, result: StepResult) -> bool:
        """Whether the store refuses this result."""
        entry_id = EntryId(plan.epoch, plan.step)
        return self._cluster.refuses(self.results_key, entry_id, result_bytes(plan, result))

    def serve_until(self, done: Callable[[], bool], *, hold: int = 0) -> list[Plan]:
        """Answers plans until ``done``; see :func:`serve_until`."""
        return serve_until(self._clock, [self], done, hold=hold)

    def _read(self) -> Plan | None:
        """One entry of the log: a plan, or None for an opening and where there is none. Raises Closed."""
        for raw_id, data in self._plans.read(self._after, 0)[:1]:
            self._after = raw_id.decode()
            entry_id, entry = EntryId.parse(raw_id), log.PlanEntry.FromString(data)
            kind = entry.WhichOneof("entry")
            if kind == "open":
                self.epoch, self.name, self._fetched = entry.open.epoch, entry.open.name, 0
                self.table = Table(self.shape, self._script)
            elif kind == "close":
                raise Closed(entry.close.reason)
            else:
                self._fetched += 1
                assert entry_id == (self.epoch, self._fetched), f"plan {entry_id} out of turn"
                return codec.plan_from_proto(entry_id.epoch, entry_id.step, entry.plan)
        return None


def serve_until(
    clock: Clock, groups: Sequence[FakeGroup], done: Callable[[], bool], *, hold: int = 0, seconds: float = 20
) -> list[Plan]:
    """Answers the plans of groups until ``done``, of each group the oldest first, and returns them.

    ``hold``: how many of each stay unanswered as long as more come in. Keeps the scheduler's windows full.
    """
    deadline = clock.now() + seconds
    plans: list[Plan] = []
    held: dict[FakeGroup, deque[Plan]] = {group: deque() for group in groups}
    while any(held.values()) or not done():
        assert clock.now() < deadline, "not done in time"
        for group, unanswered in held.items():
            plan = group.plan_within(0.03 / len(groups))
            if plan is not None:
                unanswered.append(plan)
                plans.append(plan)
            if len(unanswered) > (0 if plan is None else hold):
                group.answer(unanswered.popleft())
    return plans


def group_info(incarnation: str, shape: GroupShape, checkpoint: str) -> log.GroupInfo:
    """What a scripted group announces. ``checkpoint``: its fingerprint."""
    return log.GroupInfo(
        incarnation=incarnation,
        num_blocks=shape.num_blocks,
        max_seqs=shape.max_seqs,
        max_model_len=shape.max_model_len,
        tp=1,
        device="cpu",
        dtype="float32",
        architecture="scripted",
        vocab_size=VOCAB,
        eos_token_ids=sorted(EOS_IDS),
        fingerprint=checkpoint,
    )


def result_bytes(plan: Plan, result: StepResult) -> bytes:
    """The entry of the results log, as rank 0 writes it."""
    return log.ResultEntry(
        result=log.StepResult(
            admitted=[
                log.Admitted(
                    request_id=a.request_id,
                    incarnation=a.incarnation,
                    num_outputs=a.num_outputs,
                    num_cached=a.num_cached,
                )
                for a in plan.admissions
            ],
            **result_rows.columns(result.slots, result.incarnations, result.ids, result.finishes),
            ended=codec.ended_to_proto(plan.ended),
            decodes=plan.num_decodes,
            prefill_tokens=sum(chunk.count for chunk in plan.chunks),
        )
    ).SerializeToString()
