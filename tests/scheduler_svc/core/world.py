"""The core with a worker, a reader of the results log and an auditor around it, moved by hand."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field, replace

from albireo.contract.plan import (
    BLOCK_SIZE,
    Admission,
    Finish,
    GroupShape,
    Plan,
    SamplingParams,
    StepResult,
    Submission,
    blocks_for,
    branches,
)
from scheduler_svc.core import Limits, SchedulerCore

from .worker_model import Worker, solo

EPOCH = 7


def world(
    *,
    num_blocks: int = 64,
    max_seqs: int = 4,
    max_model_len: int = 256,
    tokens: int = 64,
    chunk: int = 32,
    ahead: int = 1,
    digest_every: int = 1,
    prefix_cache: bool = True,
    priority_seconds: float = 10.0,
) -> World:
    """A world with room for everything, unless told otherwise."""
    shape = GroupShape(num_blocks, max_seqs, max_model_len)
    limits = Limits(tokens, max_seqs, chunk, ahead, prefix_cache, priority_seconds, digest_every)
    return World(shape, limits)


def prompt(length: int, salt: int = 0) -> tuple[int, ...]:
    """A prompt without an end token; prompts of different salt share nothing."""
    return tuple((salt * 5 + i * i) % 23 + 1 for i in range(length))


def seed_that_stops(tokens: tuple[int, ...], after: int) -> int:
    """A seed with which the ``after``-th output of a prompt is an end token, and none before."""
    for seed in range(10_000):
        outputs, finish = solo(tokens, SamplingParams(max_tokens=after, seed=seed), 10_000)
        if len(outputs) == after and finish is Finish.STOP:
            return seed
    raise AssertionError("no such seed")


def family(name: str) -> str:
    """Id of the request that a branch belongs to."""
    return name.split("#")[0]


@dataclass
class Story:
    """What the outside knows of one branch of a submitted request."""

    submission: Submission
    deadline: float | None
    read: list[int] = field(default_factory=list)  # what the reader of the results log has seen
    final: Finish = Finish.NONE  # the first end that he has seen
    settled_final: bool = False  # the core has been given the finishing row
    announced: bool = False  # a plan has carried its `ended`
    cancelled: bool = False
    admitted: bool = False


class World:
    """Plans are published, run and settled one call at a time, in that order for each step.

    Every call checks all that can be checked from outside: budgets, the fence, the worker's contract, the
    tokens against a solo run, exactly one final reason for each request, and the core's own audit.
    """

    def __init__(self, shape: GroupShape, limits: Limits) -> None:
        self.shape, self.limits = shape, limits
        self.core = SchedulerCore(shape, limits, epoch=EPOCH, salt=b"test")
        self.worker = Worker(shape)
        self.window = limits.max_in_flight
        self.now = 100.0
        self.submitted: list[str] = []
        self.stories: dict[str, Story] = {}  # by branch name
        self.by_incarnation: dict[int, str] = {}
        self.published: deque[Plan] = deque()  # not run yet
        self.unsettled: deque[StepResult] = deque()  # run, not settled
        self.settled: list[StepResult] = []
        self.plans: list[Plan] = []
        self.departures = 0
        self.tables: dict[int, list[int]] = {}  # slot -> blocks, as published
        self.slot_reached: dict[int, int] = {}  # last published step that runs the slot
        self.reached: dict[int, int] = {}  # block -> last published step that reads or writes it
        self.written: dict[int, int] = {}  # block -> last published step that writes it
        self.shadow = Worker(shape)  # runs each plan as it is published, to know what the step will touch

    # -- what may happen ----------------------------------------------------------------------------

    def submit(
        self,
        request_id: str,
        prompt: tuple[int, ...],
        *,
        max_tokens: int = 8,
        seed: int = 0,
        ignore_eos: bool = False,
        priority: int = 0,
        timeout_s: float | None = None,
        n: int = 1,
        prompt_logprobs: int = -1,
    ) -> None:
        sampling = SamplingParams(
            max_tokens=max_tokens, seed=seed, ignore_eos=ignore_eos, prompt_logprobs=prompt_logprobs
        )
        submission = Submission(request_id, prompt, sampling, priority, timeout_s, n)
        self.core.submit(submission, self.now)
        deadline = None if timeout_s is None else self.now + timeout_s
        self.submitted.append(request_id)
        for branch in branches(submission):
            self.stories[branch.request_id] = Story(branch, deadline)
        self.check()

    def cancel(self, name: str) -> bool:
        """``name`` of a request, with all its branches, or of a branch."""
        live = [
            story
            for own, story in self.stories.items()
            if name in (own, family(own)) and not story.settled_final and not story.announced
        ]
        known = self.core.cancel(name)
        assert known == bool(live)
        for story in live:
            story.cancelled = True
        self.check()
        return known

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.core.expire(self.now)
        deadline = self.core.next_deadline()
        assert deadline is None or deadline > self.now
        self.check()

    def set_window(self, plans: int) -> None:
        """What is in flight stays there: a smaller window holds back the next plans only."""
        self.core.set_window(plans)
        self.window = plans
        self.check()

    def plan(self) -> Plan | None:
        in_flight = len(self.published) + len(self.unsettled)
        preempted = self.core.stats().preemptions
        plan = self.core.plan(self.now)
        if plan is not None:
            if plan.paused or self.core.stats().preemptions > preempted:
                assert not plan.admissions, "an admission while blocks are short"
            assert in_flight < self.window
            self._audit(plan, in_flight)
            self.plans.append(plan)
            self.published.append(plan)
        self.check()
        return plan

    def run(self) -> StepResult:
        """The worker runs the oldest plan, and the result is in the log."""
        plan = self.published.popleft()
        result = self.worker.run(plan)
        self._read(result, plan)
        self.unsettled.append(result)
        return result

    def settle(self) -> StepResult:
        result = self.unsettled.popleft()
        self.core.settle(result)
        self.settled.append(result)
        for incarnation, finish in zip(result.incarnations, result.finishes, strict=True):
            if finish:
                self.stories[self.by_incarnation[incarnation]].settled_final = True
        self.check()
        return result

    # -- compositions -------------------------------------------------------------------------------

    def step(self) -> bool:
        """Plans all that the window allows, runs one step, settles one. False if nothing was left to do."""
        before = len(self.plans), len(self.settled)
        while self.plan():
            pass
        if self.published:
            self.run()
        if self.unsettled:
            self.settle()
        return before != (len(self.plans), len(self.settled))

    def drain(self, max_steps: int) -> int:
        """Runs until everything is over; checks that nothing is left. Returns the steps it took."""
        steps = 0
        while self.step():
            steps += 1
            assert steps <= max_steps, "does not come to an end"
        for request_id, story in self.stories.items():
            assert story.final, f"{request_id} never ended"
        stats = self.core.stats()
        assert stats.waiting == stats.running == stats.steps_in_flight == 0
        assert stats.slots_free == self.shape.max_seqs
        assert stats.blocks_free == self.shape.num_blocks
        assert self.core.next_deadline() is None
        assert not self.worker.slots
        if not any(story.announced for story in self.stories.values()):
            assert stats.wasted_rows == self.worker.wasted_rows
            assert stats.late_rows == 0
        self.departures += self.core.take_departures()
        assert self.departures == len(self.stories)
        return steps

    def work_left(self) -> int:
        """Tokens that the requests may still need, alone."""
        return sum(
            len(story.submission.prompt) + story.submission.sampling.max_tokens
            for story in self.stories.values()
            if not story.final
        )

    def check(self) -> None:
        wrong = self.core.check_integrity()
        assert not wrong, wrong

    # -- the auditor --------------------------------------------------------------------------------

    def _audit(self, plan: Plan, in_flight: int) -> None:
        limits, settled = self.limits, len(self.settled)
        assert (plan.epoch, plan.step) == (EPOCH, len(self.plans) + 1)
        assert any(
            (plan.released, plan.paused, plan.admissions, plan.chunks, plan.ended, plan.num_decodes)
        ), "an empty plan"
        if not any((plan.paused, plan.chunks, plan.ended, plan.num_decodes)):
            assert in_flight == 0, "a release alone that takes a place in the window"
        tokens = plan.num_decodes + sum(chunk.count for chunk in plan.chunks)
        assert tokens <= limits.max_num_batched_tokens
        assert all(chunk.count <= limits.prefill_chunk for chunk in plan.chunks)
        for slot in plan.released:
            del self.tables[slot]
        cached = Counter({a.slot: a.num_cached for a in plan.admissions})
        names = {a.slot: a.request_id for a in plan.admissions}
        for admission in plan.admissions:
            assert self.slot_reached.get(admission.slot, 0) <= settled, "a fenced slot"
            self.by_incarnation[admission.incarnation] = admission.request_id
            self._audit_admission(self.stories[admission.request_id], admission, plan)
            self.tables[admission.slot] = []
        assert len(self.tables) <= limits.max_num_seqs
        for grant in plan.grants:
            table = self.tables[grant.slot]
            for block in grant.blocks:
                if len(table) < blocks_for(cached[grant.slot]):
                    if self.written.get(block, 0) > settled:
                        writer, reader = self.shadow.writers[block], names[grant.slot]
                        assert family(writer) == family(reader), "a prefix hit on a block still written"
                else:
                    assert self.reached.get(block, 0) <= settled, "a fenced block"
                    assert all(block not in other for other in self.tables.values()), "a block in use"
                table.append(block)
        for ended in plan.ended:
            story = self.stories[ended.request_id]
            assert not story.announced
            assert not story.settled_final
            story.announced = True
            if ended.reason is Finish.CANCELLED:
                assert story.cancelled
            else:
                assert ended.reason is Finish.DEADLINE
                assert story.deadline is not None
                assert story.deadline <= self.now
        if plan.digest is not None:
            assert plan.step % limits.digest_every == 0
        self.shadow.run(plan)
        for block in self.shadow.reached[plan.step]:
            self.reached[block] = plan.step
        for block in self.shadow.written[plan.step]:
            self.written[block] = plan.step
            assert sum(block in table for table in self.tables.values()) <= 1, "a shared block is written"
        for slot, row in self.shadow.slots.items():
            if row.decoding or any(chunk.slot == slot for chunk in plan.chunks):
                self.slot_reached[slot] = plan.step

    def _audit_admission(self, story: Story, admission: Admission, plan: Plan) -> None:
        """Recompute begins with what was delivered, all of it. The prompt is computed once for all branches,
        and once more where its log-probabilities are to be told."""
        submission, tokens = story.submission, admission.tokens
        assert not story.final
        assert tokens == (*submission.prompt, *story.read)
        assert admission.num_outputs == len(story.read)
        told = -1 if story.read else submission.sampling.prompt_logprobs
        assert admission.sampling == replace(submission.sampling, prompt_logprobs=told)
        computed = any(
            family(row.request_id) == family(submission.request_id)
            and (row.decoding or row.joins or row.paused)
            and slot not in plan.released
            for slot, row in self.shadow.slots.items()
        )
        if told >= 0:
            assert admission.num_cached == 0
        elif computed:
            shared = min(len(submission.prompt), len(tokens) - 1) // BLOCK_SIZE
            assert admission.num_cached >= shared * BLOCK_SIZE
        story.admitted = True

    # -- the reader ---------------------------------------------------------------------------------

    def _read(self, result: StepResult, plan: Plan) -> None:
        rows = zip(result.incarnations, result.ids, result.finishes, strict=True)
        for incarnation, token, finish in rows:
            story = self.stories[self.by_incarnation[incarnation]]
            assert not story.final, "a row after the end"
            story.read.append(token)
            expected, why = solo(story.submission.prompt, story.submission.sampling, self.shape.max_model_len)
            assert story.read == expected[: len(story.read)]
            if finish:
                assert (story.read, Finish(finish)) == (expected, why)
                story.final = why
        for ended in plan.ended:
            story = self.stories[ended.request_id]
            story.final = story.final or ended.reason
