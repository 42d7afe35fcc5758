"""A group with KV tiers and a core that follows it, moved by hand: its results say what the test says."""

from __future__ import annotations

from collections import deque

from albireo.contract.plan import Finish, GroupShape, Plan, SamplingParams, StepResult, Submission
from albireo.contract.tiers import Contents, Frames, Spill, TierRead, TierShape
from scheduler_svc.core import GroupCore, Limits, SchedulerCore, Speed

from .followers import check_follower, from_log

EPOCH = 3
STEP_SECONDS = 0.01
TOKEN = 7
"""What every row samples."""


def disk(frames: int = 64, *, read: float = 1e-6, write: float = 1e-6) -> TierShape:
    """A tier that pays, unless a test says otherwise."""
    return TierShape("disk", frames, read, write)


def prompt(blocks: int, salt: int = 0, more: int = 4) -> tuple[int, ...]:
    """So many full blocks and a few tokens; prompts of different salt share nothing."""
    return tuple(range(1000 * salt + 1, 1000 * salt + 1 + 16 * blocks + more))


class Tiered:
    """Requests end by their length. After each call the core is sound, and its follower has its state."""

    def __init__(
        self,
        *tiers: TierShape,
        num_blocks: int = 64,
        max_seqs: int = 4,
        window: int = 2,
        chunk: int = 1024,
        known: bool = True,
    ) -> None:
        """``known``: that the tiers hold nothing has been reported."""
        limits = Limits(1024, max_seqs, chunk, window, digest_every=1)
        self.shape = GroupShape(num_blocks, max_seqs, num_blocks * 16, tiers or (disk(),))
        self.now = 10.0
        self.core, self.group = self._core(limits)
        self.follower, self.following = self._core(limits)
        self.in_flight: deque[Plan] = deque()
        self.plans: list[Plan] = []
        self._decoding: dict[int, int] = {}  # incarnation by slot
        self._joining: dict[int, int] = {}
        self._slots: dict[int, int] = {}
        self._tokens: dict[int, int] = {}  # by incarnation
        self._ends: dict[int, int] = {}
        self._rows: dict[int, list[tuple[int, int]]] = {}  # slot and incarnation, by step
        self._over: set[int] = set()  # incarnations whose rows do not count
        if known:
            self.plan()
            self.settle(contents_end=True)

    def _core(self, limits: Limits) -> tuple[SchedulerCore, GroupCore]:
        core = SchedulerCore(limits, epoch=EPOCH, salt=b"salt")
        speed = Speed(step_seconds=STEP_SECONDS, prefill_token_seconds=1e-3)
        return core, core.join("g", self.shape, speed=speed)

    def submit(self, name: str, tokens: tuple[int, ...], *, max_tokens: int = 4, n: int = 1) -> None:
        submission = Submission(name, tokens, SamplingParams(max_tokens, seed=1, ignore_eos=True), n=n)
        for core in (self.core, self.follower):
            core.submit(submission, self.now)

    def plan(self) -> Plan | None:
        self.core.expire(self.now)
        self.follower.apply_ended(self.core.take_ended())
        self.core.place()
        plan = self.group.plan(self.now)
        if plan is not None:
            self._note(plan)
            self.in_flight.append(plan)
            self.plans.append(plan)
            self.following.apply(from_log(plan))
        self._check()
        return plan

    def planned(self) -> Plan:
        """The next plan, which there must be."""
        plan = self.plan()
        assert plan is not None
        return plan

    def settle(
        self,
        *,
        error: bool = False,
        unfetched: tuple[int, ...] = (),
        lost: tuple[Frames, ...] = (),
        read: tuple[TierRead, ...] = (),
        contents: tuple[Contents, ...] = (),
        contents_end: bool = False,
    ) -> None:
        plan = self.in_flight.popleft()
        self._over.update(unfetched)
        rows = [row for row in self._rows.pop(plan.step) if row[1] not in self._over]
        finishes = [self._sampled(incarnation, error=error) for _, incarnation in rows]
        result = StepResult(
            plan.epoch,
            plan.step,
            tuple(slot for slot, _ in rows),
            tuple(incarnation for _, incarnation in rows),
            (TOKEN,) * len(rows),
            tuple(finishes),
            unfetched,
            lost,
            read,
            contents,
            contents_end,
        )
        self.group.settle(result)
        self.following.settle(result)
        self._check()

    def run(self, steps: int = 100) -> None:
        """Plans and settles, one step at a time, until nothing is left to do at this time."""
        for _ in range(steps):
            self.plan()
            if not self.in_flight:
                return
            self.settle()
        raise AssertionError("does not come to an end")

    def promote(self) -> None:
        """The follower makes the plans from here on."""
        self.core, self.follower = self.follower, self.core
        self.group, self.following = self.following, self.group

    def evict(self, salt: int = 99) -> None:
        """Another request takes all blocks, one after the other, and ends."""
        full = self.shape.num_blocks - 1
        self.submit(f"evict{salt}", prompt(full, salt), max_tokens=1)
        self.run()

    def frames_used(self) -> int:
        return sum(tier.frames_used for tier in self.group.stats().tiers)

    def _sampled(self, incarnation: int, *, error: bool) -> int:
        self._tokens[incarnation] += 1
        over = self._tokens[incarnation] == self._ends[incarnation]
        if over or error:
            self._over.add(incarnation)
        return Finish.ERROR if error else Finish.LENGTH if over else Finish.NONE

    def _note(self, plan: Plan) -> None:
        self._decoding |= self._joining
        self._joining = {}
        for slot in (*plan.released, *plan.paused):
            self._decoding.pop(slot, None)
        for slot in plan.released:
            del self._slots[slot]
        for slot in plan.resumed:
            self._decoding[slot] = self._slots[slot]
        for admission in plan.admissions:
            self._slots[admission.slot] = admission.incarnation
            self._tokens[admission.incarnation] = len(admission.tokens)
            num_prompt = len(admission.tokens) - admission.num_outputs
            self._ends[admission.incarnation] = num_prompt + admission.sampling.max_tokens
        assert plan.num_decodes == len(self._decoding)
        rows = sorted(self._decoding.items())
        for chunk in plan.chunks:
            incarnation = self._slots[chunk.slot]
            if chunk.start + chunk.count == self._tokens[incarnation]:
                self._joining[chunk.slot] = incarnation
                rows.append((chunk.slot, incarnation))
        self._rows[plan.step] = rows

    def _check(self) -> None:
        assert self.core.check_integrity() == []
        check_follower(self.follower, self.core)


def evicted(
    *tiers: TierShape, blocks: int = 6, num_blocks: int = 32, window: int = 2, chunk: int = 1024
) -> Tiered:
    """The blocks of prompt(blocks) are in the fastest tier, and hold something else."""
    w = Tiered(*tiers, num_blocks=num_blocks, window=window, chunk=chunk)
    w.submit("first", prompt(blocks), max_tokens=1)
    w.run()
    w.evict()
    w.now += 100.0
    assert all(w.group.ledger.pool.find(key) is None for key in keys(w, blocks))
    return w


def keys(w: Tiered, blocks: int) -> list[bytes]:
    """Of the blocks of prompt(blocks)."""
    found = [key for spill in all_spills(w) for key in spill.keys]
    assert len(found) >= blocks
    return found[:blocks]


def all_spills(w: Tiered) -> list[Spill]:
    return [spill for plan in w.plans for spill in plan.spills]


def fetched(plan: Plan) -> int:
    return sum(len(fetch.blocks) for fetch in plan.fetches)


def running(read: float, *, window: int = 2) -> Tiered:
    """A row decodes, and a request whose prefix takes ``read`` a block waits. Nothing is in flight."""
    w = evicted(disk(read=read), window=window)
    w.submit("row", prompt(1, 5), max_tokens=60)
    w.plan()
    w.settle()
    w.submit("again", prompt(6))
    return w
