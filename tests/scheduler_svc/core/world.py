"""The core with groups, a reader of all logs and auditors around it, moved by hand."""

from __future__ import annotations

from albireo.contract.plan import (
    DEFAULT_TENANT,
    GroupShape,
    Plan,
    SamplingParams,
    StepResult,
    Submission,
    branches,
)
from albireo.contract.tiers import TierShape
from scheduler_svc.core import Limits, SchedulerCore, Speed, WaitingEnd

from .auditor import EPOCH
from .first_group import FirstGroup
from .followers import check_follower, folded
from .group_world import GroupWorld
from .nothing_left import check_nothing_left
from .story import Story, family, has_failed
from .tier_model import Frame, Stored, fitting

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
    groups: int = 1,
    tiers: tuple[TierShape, ...] = (),
) -> World:
    """A world with capacity for everything, unless the arguments say otherwise; its groups are g0, g1, ..."""
    limits = Limits(tokens, max_seqs, chunk, ahead, prefix_cache, priority_seconds, digest_every)
    w = World(limits, followed=followed)
    for number in range(groups):
        w.join(f"g{number}", GroupShape(num_blocks, max_seqs, max_model_len, tiers))
    return w


class World(FirstGroup):
    """Plans are published, run and settled one call at a time, in that order for each step.

    Every call checks all that can be checked from outside: budgets, reuse of slots and blocks, the worker's
    contract, the tokens against a solo run, exactly one final reason for each request, and the core's own
    audit; if the core is followed, that the follower has the same state. Where a call names no group, it is
    about the first one.
    """

    def __init__(self, limits: Limits, *, followed: bool = False) -> None:
        self.limits = limits
        self.core = SchedulerCore(limits, epoch=EPOCH, salt=SALT)
        self.follower = SchedulerCore(limits, epoch=EPOCH, salt=SALT) if followed else None
        self.groups: dict[str, GroupWorld] = {}
        self.now = 100.0
        self.submitted: list[str] = []
        self.stories: dict[str, Story] = {}  # by branch name
        self.notices: list[WaitingEnd] = []
        self.departures = 0
        self.wasted_rows = 0  # of groups that have left
        self.failing: set[str] = set()
        self.lost: set[str] = set()  # whose `ended` was in a plan that has never run
        self.context = 0  # of the largest group so far
        self.kept: dict[Frame, Stored] = {}  # what the tiers of the last group that left hold

    # -- groups -------------------------------------------------------------------------------------

    def join(self, name: str, shape: GroupShape, *, speed: Speed | None = None) -> GroupWorld:
        """Its tiers hold what those of the group that left last held, as far as they have the frames."""
        core = self.core.join(name, shape, speed=speed)
        follower = self.follower.join(name, shape) if self.follower else None
        frames = fitting(self.kept, shape)
        self.groups[name] = group = GroupWorld(core, follower, self.stories, frames)
        group.worker.failing = self.failing
        if not self.context:
            for story in self.stories.values():
                story.context = shape.max_model_len
        self.context = max(self.context, shape.max_model_len)
        self.check()
        return group

    def leave(self, name: str, *, died: bool = False) -> None:
        """A group goes: what it has written is read first, what it has not run is lost."""
        group = self.groups[name]
        while group.unsettled:
            group.settle()
            self.check()
        self.wasted_rows += group.auditor.wasted_rows(group.worker.finished)
        self.kept = group.worker.tiers.frames
        del self.groups[name]
        self.core.leave(group.core, died=died)
        if self.follower:
            assert group.follower
            self.follower.leave(group.follower, died=died)
        group.auditor.left(died=died, settled=len(group.settled))
        self.lost |= {end.request_id for plan in group.published for end in plan.ended}
        self.check()

    # -- requests -----------------------------------------------------------------------------------

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
        tenant: str = DEFAULT_TENANT,
    ) -> None:
        sampling = SamplingParams(
            max_tokens=max_tokens, seed=seed, ignore_eos=ignore_eos, prompt_logprobs=prompt_logprobs
        )
        submission = Submission(
            request_id,
            prompt,
            sampling,
            priority=priority,
            timeout_s=timeout_s,
            n=n,
            gateway=gateway,
            tenant=tenant,
        )
        self.core.submit(submission, self.now)
        if self.follower:
            self.follower.submit(submission, self.now)
        deadline = None if timeout_s is None else self.now + timeout_s
        self.submitted.append(request_id)
        for branch in branches(submission):
            self.stories[branch.request_id] = Story(branch, deadline, self.context or 10_000)
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
        self.failing.add(name)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.core.expire(self.now)
        deadline = self.core.next_deadline()
        assert deadline is None or deadline > self.now
        self.check()

    def notice(self) -> tuple[WaitingEnd, ...]:
        """Waiting requests end whose end is decided."""
        ended = self.core.take_ended()
        if self.follower:
            self.follower.apply_ended(ended)
        for end in ended:
            story = self.stories[end.request_id]
            if end.request_id in self.lost:  # the reader has not seen it in the results
                self.lost.remove(end.request_id)
                assert end.num_outputs <= len(story.read)
                story.final = story.final or end.reason
                continue
            assert story.open or (story.refused and not story.announced), "a second end"
            assert not story.final
            assert end.num_outputs == len(story.read)
            story.check_reason(end.reason, self.now, failed=has_failed(self.stories, end.request_id))
            story.announced = True
            story.final = end.reason
        self.notices += ended
        self.check()
        return ended

    # -- steps --------------------------------------------------------------------------------------

    def set_window(self, plans: int) -> None:
        self.group.set_window(plans)
        self.check()

    def promote(self) -> None:
        """The follower makes the plans from here on, and the core that made them follows it."""
        assert self.follower
        self.core, self.follower = self.follower, self.core
        for group in self.groups.values():
            group.promote()
        self.check()

    def plan(self, name: str | None = None) -> Plan | None:
        """As a turn of the service: what is decided of waiting requests comes first."""
        self.core.expire(self.now)
        self.notice()
        self.place()
        plan = self._named(name).plan(self.now)
        self.check()
        return plan

    def place(self) -> None:
        """Waiting requests are placed; for the logs nothing has happened."""
        before = folded(self.core)
        self.core.place()
        assert folded(self.core) == before
        self.check()

    def run(self, name: str | None = None) -> StepResult:
        return self._named(name).run()

    def settle(self, name: str | None = None) -> StepResult:
        result = self._named(name).settle()
        self.check()
        return result

    # -- compositions -------------------------------------------------------------------------------

    def step(self) -> bool:
        """Plans all that the windows allow, runs and settles a step of each group. False if nothing was
        left."""
        before = self._progress()
        for name, group in self.groups.items():
            while self.plan(name):
                pass
            if group.published:
                group.run()
            if group.unsettled:
                self.settle(name)
        if not self.groups:
            self.notice()
        return before != self._progress()

    def drain(self, max_steps: int) -> int:
        """Runs until everything is over; checks that nothing is left. Returns the steps it took."""
        steps = 0
        while self.step() or self._wait():
            steps += 1
            assert steps <= max_steps, "does not come to an end"
        check_nothing_left(self)
        self.departures += self.core.take_departures()
        assert self.departures == len(self.stories)
        return steps

    def work_left(self) -> int:
        """Tokens that the requests may still need, alone."""
        left = [story.submission for story in self.stories.values() if not story.final]
        return sum(len(submission.prompt) + submission.sampling.max_tokens for submission in left)

    def check(self) -> None:
        assert self.core.check_integrity() == []
        if self.follower:
            check_follower(self.follower, self.core)

    def _wait(self) -> bool:
        """Where nothing is left but blocks that tiers can take later, it is later."""
        deadline = self.core.next_deadline()
        if deadline is None or not all(story.final for story in self.stories.values()):
            return False
        self.advance(deadline - self.now)
        return True

    def _named(self, name: str | None) -> GroupWorld:
        return self.group if name is None else self.groups[name]

    def _progress(self) -> tuple[int, list[tuple[int, int]]]:
        return len(self.notices), [(len(g.plans), len(g.settled)) for g in self.groups.values()]
