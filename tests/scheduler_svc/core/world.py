"""The core with a worker, a reader of the results log and an auditor around it, moved by hand."""

from __future__ import annotations

from collections import deque

from albireo.contract.plan import GroupShape, Plan, SamplingParams, StepResult, Submission, branches
from scheduler_svc.core import Limits, SchedulerCore

from .auditor import EPOCH, Auditor
from .followers import Follower
from .reader import read_result
from .story import Story, family
from .worker_model import Worker

SALT = b"test"


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
    followed: bool = False,
) -> World:
    """A world with capacity for everything, unless the arguments say otherwise."""
    shape = GroupShape(num_blocks, max_seqs, max_model_len)
    limits = Limits(tokens, max_seqs, chunk, ahead, prefix_cache, priority_seconds, digest_every)
    return World(shape, limits, followed=followed)


class World:
    """Plans are published, run and settled one call at a time, in that order for each step.

    Every call checks all that can be checked from outside: budgets, reuse of slots and blocks, the worker's
    contract, the tokens against a solo run, exactly one final reason for each request, and the core's own
    audit; if the core is followed, that the follower has the same state.
    """

    def __init__(self, shape: GroupShape, limits: Limits, *, followed: bool = False) -> None:
        self.shape, self.limits = shape, limits
        self.core = SchedulerCore(shape, limits, epoch=EPOCH, salt=SALT)
        self.follower = Follower(shape, limits, epoch=EPOCH, salt=SALT) if followed else None
        self.worker = Worker(shape)
        self.window = limits.max_in_flight
        self.now = 100.0
        self.submitted: list[str] = []
        self.stories: dict[str, Story] = {}  # by branch name
        self.auditor = Auditor(shape, limits, self.stories)
        self.published: deque[Plan] = deque()  # not run yet
        self.unsettled: deque[StepResult] = deque()  # run, not settled
        self.settled: list[StepResult] = []
        self.plans: list[Plan] = []
        self.departures = 0

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
        gateway: str = "",
    ) -> None:
        sampling = SamplingParams(
            max_tokens=max_tokens, seed=seed, ignore_eos=ignore_eos, prompt_logprobs=prompt_logprobs
        )
        submission = Submission(
            request_id, prompt, sampling, priority=priority, timeout_s=timeout_s, n=n, gateway=gateway
        )
        self.core.submit(submission, self.now)
        if self.follower:
            self.follower.submit(submission, self.now)
        deadline = None if timeout_s is None else self.now + timeout_s
        self.submitted.append(request_id)
        for branch in branches(submission):
            self.stories[branch.request_id] = Story(branch, deadline)
        self.check()

    def refuse(self, request_id: str, *, n: int = 1) -> None:
        """A submission that cannot run ends with an error."""
        submission = Submission(request_id, (), SamplingParams(max_tokens=1, seed=0), n=n)
        self.core.refuse(submission)
        if self.follower:
            self.follower.refuse(submission)
        for branch in branches(submission):
            self.stories[branch.request_id] = Story(branch, None, refused=True)
        self.check()

    def cancel(self, name: str) -> bool:
        """``name`` of a request, with all its branches, or of a branch."""
        live = [s for own, s in self.stories.items() if name in (own, family(own)) and s.open]
        known = self.core.cancel(name)
        assert known == bool(live)
        for story in live:
            story.cancelled = True
        self.check()
        return known

    def abandon(self, gateway: str) -> None:
        """The gateway is gone, and with it all that wait for its requests."""
        self.core.abandon(gateway)
        for story in self.stories.values():
            story.cancelled |= story.submission.gateway == gateway
        self.check()

    def fail(self, name: str) -> None:
        """The worker ends the branch with an error as soon as it runs."""
        self.stories[name].failing = True
        self.worker.failing.add(name)

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

    def promote(self) -> None:
        """The follower makes the plans from here on, and the core that made them follows it."""
        assert self.follower
        self.core, self.follower.core = self.follower.core, self.core
        self.core.set_window(self.window)
        self.check()

    def plan(self) -> Plan | None:
        in_flight = len(self.published) + len(self.unsettled)
        preempted = self.core.stats().preemptions
        plan = self.core.plan(self.now)
        if plan is not None:
            if plan.paused or self.core.stats().preemptions > preempted:
                assert not plan.admissions, "an admission while blocks are short"
            assert in_flight < self.window
            self.auditor.audit(plan, in_flight=in_flight, settled=len(self.settled), now=self.now)
            if self.follower:
                self.follower.apply(plan, self.core)
            self.plans.append(plan)
            self.published.append(plan)
        self.check()
        return plan

    def run(self) -> StepResult:
        """The worker runs the oldest plan, and the result is in the log."""
        plan = self.published.popleft()
        result = self.worker.run(plan)
        read_result(
            result,
            plan,
            stories=self.stories,
            by_incarnation=self.auditor.by_incarnation,
            shape=self.shape,
        )
        self.unsettled.append(result)
        return result

    def settle(self) -> StepResult:
        result = self.unsettled.popleft()
        self.core.settle(result)
        if self.follower:
            self.follower.settle(result)
        self.settled.append(result)
        for incarnation, finish in zip(result.incarnations, result.finishes, strict=True):
            if finish:
                self.stories[self.auditor.by_incarnation[incarnation]].settled_final = True
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
        if self.follower:
            self.follower.check(self.core)
