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

from albireo.checkpoint.fingerprint import fingerprint
from albireo.contract import codec
from albireo.contract.keys import Keys
from albireo.contract.plan import GroupShape, Plan, StepResult, public_name
from albireo.models import TINY
from albireo.store.interface import EntryId
from albireo.v1 import log_pb2 as log
from tests.races.cluster import POLL_SECONDS, Cluster
from tests.scheduler_svc.core.worker_model import EOS_IDS, VOCAB, Row, Worker

FOR_EVER = 600.0
"""A lease that outlives every test: the group stays announced without renewal."""


class Closed(Exception):
    """The epoch of this group is over."""


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
    ) -> None:
        """Announces itself. ``script``: the first tokens of requests. The lease is never renewed."""
        self._cluster = cluster
        self._clock = cluster.clock
        self.keys = keys
        self.shape = shape
        self.incarnation = uuid.uuid4().hex
        self.epoch = 0
        self.table = Table(shape, script or {})
        self._script = script or {}
        self._fetched = 0  # the last step whose plan was read
        self._store = cluster.open_store(keys)
        self._plans = self._store.log(keys.plans)
        self._after = self._plans.last()
        info = group_info(self.incarnation, shape, fingerprint(TINY))
        self._announcement = info.SerializeToString()
        self.lease = self._store.lease(keys.group, self._announcement, ttl=FOR_EVER)
        assert self.lease.acquire(), "another group is announced"

    def stop_renewing(self, seconds: float) -> None:
        """The lease runs out after ``seconds``, as that of a group that is dead or stuck does."""
        self._store.lease(self.keys.group, self._announcement, ttl=seconds).renew()

    def wait_epoch(self, *, after: int = 0, seconds: float = 10) -> int:
        """Waits until an epoch of this group beyond ``after`` begins; what is left of the last is dropped."""
        deadline = self._clock.now() + seconds
        while self.epoch <= after:
            assert self._clock.now() < deadline, "no epoch began"
            self._read()
            self._clock.sleep(POLL_SECONDS)
        return self.epoch

    def wait_closed(self) -> None:
        """Reads on until the epoch is over."""
        with suppress(Closed):
            while True:
                self.next_plan()

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
        return self._cluster.refuses(self.keys.results, entry_id, result_bytes(plan, result))

    def serve_until(self, done: Callable[[], bool], *, hold: int = 0, seconds: float = 20) -> list[Plan]:
        """Answers plans until ``done``, the oldest first, and returns them.

        ``hold``: how many stay unanswered as long as more come in. Keeps the scheduler's window full.
        """
        deadline = self._clock.now() + seconds
        plans: list[Plan] = []
        held: deque[Plan] = deque()
        while held or not done():
            assert self._clock.now() < deadline, "not done in time"
            plan = self.plan_within(0.03)
            if plan is not None:
                held.append(plan)
                plans.append(plan)
            if len(held) > (0 if plan is None else hold):
                self.answer(held.popleft())
        return plans

    def _read(self) -> Plan | None:
        """One entry of the log: a plan of ours, or None for an opening and where there is none."""
        for raw_id, data in self._plans.read(self._after, 0)[:1]:
            self._after = raw_id.decode()
            entry_id, entry = EntryId.parse(raw_id), log.PlanEntry.FromString(data)
            if entry.WhichOneof("entry") == "open":
                self._open(entry.open)
            elif self.epoch:
                self._fetched += 1
                assert entry_id == (self.epoch, self._fetched), f"plan {entry_id} out of turn"
                return codec.plan_from_proto(entry_id.epoch, entry_id.step, entry.plan)
        return None

    def _open(self, opening: log.EpochOpen) -> None:
        if opening.group_incarnation == self.incarnation:
            self.epoch, self._fetched = opening.epoch, 0
            self.table = Table(self.shape, self._script)
        elif self.epoch:
            raise Closed(f"epoch {opening.epoch}")


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
            **codec.columns(result.slots, result.incarnations, result.ids, result.finishes),
            ended=codec.ended_to_proto(plan.ended),
            decodes=plan.num_decodes,
            prefill_tokens=sum(chunk.count for chunk in plan.chunks),
        )
    ).SerializeToString()
