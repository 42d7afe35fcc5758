"""The core of one worker group: :class:`GroupCore`, made by ``SchedulerCore.join``.

The service calls it, from the thread that calls the core of all groups.
"""

from __future__ import annotations

from itertools import islice

from albireo.contract.plan import GroupShape, Plan, StepResult
from scheduler_svc.core.errors import ProtocolError
from scheduler_svc.core.following import apply_plan
from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.limits import Limits
from scheduler_svc.core.plan_builder import PlanBuilder
from scheduler_svc.core.plan_draft import PlanDraft
from scheduler_svc.core.snapshot import GroupSnapshot, take_group_snapshot
from scheduler_svc.core.speed import Speed
from scheduler_svc.core.stats import GroupStats, group_stats
from scheduler_svc.core.stream_builder import StreamBuilder
from scheduler_svc.core.stream_pace import StreamPace
from scheduler_svc.core.stream_rules import StreamRules
from scheduler_svc.core.tier_builder import TierBuilder
from scheduler_svc.core.tier_times import TierTimes


class GroupCore:
    """Decides what one group runs, step by step, in one epoch; or follows the core that decides.

    It lasts from ``join`` to ``leave``. A result and a plan change its state, and with it the table of the
    requests; :meth:`plan` makes the next plan and changes the state as :meth:`apply` does with the finished
    plan. Where it makes none, it changes nothing but where requests are placed.

    **Optimism.** With more than one plan in flight every request is assumed to go on. Ends by length are
    predicted: no row is planned beyond them, and the plan after the last row releases the slot. A stop is not
    predicted: the rows planned beyond it are wasted, and the worker leaves them out of its results.

    **Digest.** ``Plan.digest`` is :func:`albireo.contract.plan.table_digest` over all slots that are
    occupied once the plan is applied: (slot, incarnation, tokens whose KV exists once this plan's step has
    run, blocks in its table, the last of them or -1). The third grows by one with each row a slot runs in
    the decode set, wasted ones too, and by the count of each chunk; it starts at the admission's
    ``num_cached``.
    """

    def __init__(
        self,
        name: str,
        ledger: Ledger,
        limits: Limits,
        speed: Speed,
        *,
        epoch: int,
    ) -> None:
        """``limits`` are those of this group."""
        self.name = name
        self.ledger = ledger  # for the core and its placement
        self.limits = limits
        self.speed = speed
        self.times = TierTimes(ledger.shape.tiers, speed)
        self.streams = StreamRules(ledger, limits)
        self.pace = StreamPace(speed, ledger.shape)
        self._epoch = epoch
        self._window = limits.max_in_flight
        ledger.pending.touch()

    @property
    def shape(self) -> GroupShape:
        """What the group can hold."""
        return self.ledger.shape

    @property
    def touched(self) -> bool:
        """Whether :meth:`plan` may have something to do. False once it has made no plan, until a result, an
        end or a request that is placed here changes that."""
        return self.ledger.pending in self.ledger.pending.changes.to_plan

    @property
    def settled_step(self) -> int:
        """The last step whose result is in."""
        return self.ledger.settled_step

    def set_window(self, plans: int) -> None:
        """From now on at most ``plans`` are in flight, 1 to ``Limits.max_in_flight``, its value at first."""
        if not 1 <= plans <= self.limits.max_in_flight:
            raise ValueError(f"a window of {plans} plans; 1 to {self.limits.max_in_flight} are allowed")
        if plans > self._window:
            self.ledger.pending.touch()
        self._window = plans

    def plan(self, now: float) -> Plan | None:
        """The next plan, applied already; its requests whose deadline has passed end with it.

        None if there is nothing to do, or if as many plans as the window allows wait for their results.
        Requests that are placed here and that a plan could not admit go back to the front of the queue.
        """
        ledger = self.ledger
        ledger.requests.expire(now)
        plan = None
        if len(ledger.in_flight) < self._window:
            tiers = TierBuilder(ledger, self.times, now) if ledger.tiers.directories else None
            builder = self._builder(tiers)
            plan = builder.build(self._epoch)
            if plan is None and (then := builder.next_time()) is not None:
                ledger.pending.changes.timed[ledger.pending] = then
            for request in list(ledger.pending.placed):
                ledger.requests.give_back(request)
        if plan is None:
            ledger.pending.changes.to_plan.pop(ledger.pending, None)
        else:
            ledger.pending.touch()
        return plan

    def _builder(self, tiers: TierBuilder | None) -> PlanBuilder:
        ledger, limits, rules, draft = self.ledger, self.limits, self.streams, PlanDraft()
        streams = None
        if tiers is not None and rules.active:
            streams = StreamBuilder(ledger, limits, rules, self.pace, tiers, draft)
        return PlanBuilder(ledger, limits, rules, draft, tiers, streams)

    def apply(self, plan: Plan) -> None:
        """Takes over a plan that another core has made; see **Following** of ``SchedulerCore``.

        Raises ProtocolError for a plan of another epoch, or one that is not the next; the state is unchanged.
        Raises it also for a plan that does not fit the state (a slot is taken, a block is not free, a request
        is unknown, the digest differs); the core must not be used any more then.
        """
        step = self.ledger.step
        if (plan.epoch, plan.step) != (self._epoch, step + 1):
            raise ProtocolError(
                f"plan {plan.epoch}-{plan.step} after {self._epoch}-{step} is not the next one"
            )
        apply_plan(self.ledger, plan)
        self.ledger.pending.touch()

    def settle(self, result: StepResult, seconds: float | None = None) -> None:
        """Takes in the result of a step. One of another epoch, or one that was seen before, is dropped.

        ``seconds``: from the begin of the step's forward to the end of its sampling; None if not known.
        Raises ProtocolError for a step that was not published or that comes before its turn, for a finish
        that is not one of :class:`Finish`, and for a request that did not finish where its length ends. Its
        group can only leave then.
        """
        ledger = self.ledger
        if result.epoch != self._epoch or result.step <= ledger.settled_step:
            return
        if result.step > ledger.settled_step + 1 or not ledger.in_flight:
            raise ProtocolError(
                f"a result of step {result.step}; {ledger.settled_step} settled, {ledger.step} published"
            )
        if seconds is not None:
            self._observe(seconds)
        for read in result.read:
            self.times.observe(read)
        ledger.pending.touch()
        ledger.settle(result)

    def _observe(self, seconds: float) -> None:
        """The oldest step in flight has taken so long. While it ran, the group may have read frames for the
        spans of the next one already."""
        step, *following = islice(self.ledger.in_flight, 2)
        if step.spans or any(after.spans for after in following):
            self.pace.observe(seconds, step, *following)
        elif step.rows or step.chunks:  # else it ran nothing
            self.speed.observe(seconds, step.prefill_tokens)

    def snapshot(self) -> GroupSnapshot:
        """The state as plain data, equal on a core that makes plans and on one that follows it. Slow."""
        return take_group_snapshot(self.ledger)

    def stats(self) -> GroupStats:
        """Counts for metrics and for the load that is published."""
        return group_stats(self.ledger, self.speed)
