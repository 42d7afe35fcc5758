"""The interface of the scheduler's core: the class :class:`SchedulerCore`.

The epoch calls it, from the service's thread.
"""

from __future__ import annotations

from array import array

from albireo.contract.plan import (
    MAX_BRANCHES,
    Finish,
    GroupShape,
    Plan,
    StepResult,
    Submission,
    branch_names,
    branches,
)
from scheduler_svc.core.blocks import root_key
from scheduler_svc.core.errors import ProtocolError
from scheduler_svc.core.following import apply_plan
from scheduler_svc.core.integrity import check_integrity
from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.limits import Limits
from scheduler_svc.core.plan_builder import PlanBuilder
from scheduler_svc.core.request import Request
from scheduler_svc.core.snapshot import CoreSnapshot, take_snapshot
from scheduler_svc.core.stats import CoreStats, by_tenant


class SchedulerCore:
    """Decides what a worker group runs, step by step, for one epoch; or follows the core that decides.

    The scheduler service calls it, from one thread. It reads no clock: ``now`` is a time in seconds that
    the caller gives, in the service that of the store.

    **State.** It is a fold over the logs: a submission (:meth:`submit`), a plan and a result change it, and
    nothing else does. :meth:`plan` makes the next plan and changes the state as :meth:`apply` does with the
    finished plan; where it makes none, it changes nothing. :meth:`cancel`, :meth:`abandon`, :meth:`expire`
    and :meth:`refuse` only record what the next plan will say.

    **Following.** A core that follows another one gets the same submissions, plans and results, and can go
    on with :meth:`plan` at any time. It needs:

    - the same shape, limits, epoch and salt;
    - a request, by :meth:`submit` with the same ``outputs``, before the plan that admits or ends it; it may
      know more requests than the core that made the plan;
    - before each plan, exactly the results that had settled when it was made: those up to
      ``StepTiming.settled_step`` of its log entry.

    The times given to :meth:`submit` determine the order of the queue and the deadlines, so they matter only
    to plans that it makes itself. It ends no request by itself: an end that :meth:`cancel` and the like have
    recorded is announced by the first plan that it makes, unless a plan that it applied has announced one,
    or the request has finished. Its prefix cache has the same content, but its own order of eviction.

    **Order.** The queue's key is arrival time plus ``priority * priority_seconds``, then the order of
    arrival: a priority is worth a head start and no more, so every waiting request comes first at some time.
    Slots and blocks are given in this order, and taken away in the reverse of it.

    **Branches.** A submission with ``n`` above 1 is as many requests, one after the other in the order; each
    has its own seed, slot and end. The first computes the prompt, the others share its full blocks and
    compute no more than the tokens after them. A shared block is never written again, so none is copied.

    **Optimism.** With more than one plan in flight every request is assumed to go on. Ends by length are
    predicted: no row is planned beyond them, and the plan after the last row releases the slot. A stop is not
    predicted: the rows planned beyond it are wasted, and the worker leaves them out of its results.

    **One final reason.** Every submitted request ends exactly once for a reader of the results log who takes
    the first end: by a row with a finish, or by an ``ended`` of a plan, which rank 0 repeats in that plan's
    result. A finish that settles before the ``ended`` is planned cancels the ``ended``. Once the ``ended`` of
    step n + 1 is planned, a finish may still come with step n: it is before the ``ended`` in the log, so the
    reader takes it and ignores the ``ended``; here it is a late row.

    **Digest.** ``Plan.digest`` is :func:`albireo.contract.plan.table_digest` over all slots that are
    occupied once the plan is applied: (slot, incarnation, tokens whose KV exists once this plan's step has
    run, blocks in its table, the last of them or -1). The third grows by one with each row a slot runs in
    the decode set, wasted ones too, and by the count of each chunk; it starts at the admission's
    ``num_cached``.
    """

    def __init__(self, shape: GroupShape, limits: Limits, *, epoch: int, salt: bytes) -> None:
        """Raises ValueError if the limits do not fit the group. ``salt`` seeds the prefix cache's keys."""
        limits.check(shape)
        self._shape = shape
        self._limits = limits
        self._epoch = epoch
        self._salt = salt
        self._arrivals = 0
        self._ledger = Ledger(shape, prefix_cache=limits.prefix_cache)
        self._window = limits.max_in_flight

    def submit(self, submission: Submission, now: float, *, outputs: tuple[int, ...] = ()) -> None:
        """Queues a request. One that is live already under the same id is left as it is.

        ``outputs`` are tokens that it has already brought, in an earlier epoch; a branch then continues by
        itself, under its own name. Raises ValueError for a request that can never run, or that is over.
        """
        if self._ledger.requests.named(submission.request_id):
            return
        prompt = submission.prompt
        if not 1 <= submission.n <= (1 if outputs else MAX_BRANCHES):
            raise ValueError(f"{submission.n} branches with {len(outputs)} outputs")
        if not 0 < len(prompt) < self._shape.max_model_len:
            raise ValueError(
                f"a prompt of {len(prompt)} tokens: 1 to {self._shape.max_model_len - 1} can run"
            )
        end = min(len(prompt) + submission.sampling.max_tokens, self._shape.max_model_len)
        if len(prompt) + len(outputs) >= end:
            raise ValueError(f"no token is left to sample after {len(outputs)} outputs")
        root = root_key(self._salt, "" if self._limits.shared_prefix_cache else submission.tenant)
        arrival = now + submission.priority * self._limits.priority_seconds
        family: list[Request] = []
        for branch in branches(submission):
            self._arrivals += 1
            family.append(Request(branch, (arrival, self._arrivals), array("I", prompt + outputs), end, root))
        if len(family) > 1:
            for request in family:
                request.family = family
        self._ledger.submit(family, None if submission.timeout_s is None else now + submission.timeout_s)

    def refuse(self, submission: Submission) -> None:
        """Ends with ERROR what submit did not accept, unless another is live under the same id. One that is
        submitted under that id afterwards is live and goes on."""
        if not self._ledger.requests.named(submission.request_id):
            self._ledger.schedule_refusal(branch_names(submission.request_id, submission.n))

    def cancel(self, name: str) -> bool:
        """Ends all branches of a request, or the branch of that name, with CANCELLED, unless they finish
        first. False if no request of that name is live."""
        found = self._ledger.requests.named(name)
        for request in found:
            self._ledger.schedule_end(request, Finish.CANCELLED)
        return bool(found)

    def gateways(self) -> set[str]:
        """Those whose clients wait for a live request."""
        return {request.submission.gateway for request in self._ledger.requests.live.values()} - {""}

    def abandon(self, gateway: str) -> int:
        """Ends all requests of a gateway with CANCELLED; returns how many were not ending already."""
        requests = self._ledger.requests
        found = [
            request
            for request in requests.live.values()
            if request.submission.gateway == gateway and request.name not in requests.ending
        ]
        for request in found:
            self._ledger.schedule_end(request, Finish.CANCELLED)
        return len(found)

    def expire(self, now: float) -> None:
        """Ends every request whose deadline has come with DEADLINE, running or not."""
        deadlines = self._ledger.requests.deadlines
        while (first := deadlines.peek()) and first[0][0] <= now:
            self._ledger.schedule_end(first[1], Finish.DEADLINE)

    def next_deadline(self) -> float | None:
        """When expire has something to do next."""
        first = self._ledger.requests.deadlines.peek()
        return first[0][0] if first else None

    @property
    def settled_step(self) -> int:
        """The last step whose result is in."""
        return self._ledger.settled_step

    def set_window(self, plans: int) -> None:
        """From now on at most ``plans`` are in flight, 1 to ``Limits.max_in_flight``, its value at first."""
        if not 1 <= plans <= self._limits.max_in_flight:
            raise ValueError(f"a window of {plans} plans; 1 to {self._limits.max_in_flight} are allowed")
        self._window = plans

    def plan(self, now: float) -> Plan | None:
        """The next plan, applied already; requests whose deadline has passed end with it.

        None if there is nothing to do, or if as many plans as the window allows wait for their results.
        """
        self.expire(now)
        if len(self._ledger.in_flight) >= self._window:
            return None
        return PlanBuilder(self._ledger, self._limits, self._epoch).build()

    def apply(self, plan: Plan) -> None:
        """Takes over a plan that another core has made; see **Following**.

        Raises ProtocolError for a plan of another epoch, or one that is not the next; the state is unchanged.
        Raises it also for a plan that does not fit the state (a slot is taken, a block is not free, a request
        is unknown, the digest differs); the core must not be used any more then.
        """
        if (plan.epoch, plan.step) != (self._epoch, self._ledger.step + 1):
            raise ProtocolError(
                f"plan {plan.epoch}-{plan.step} after {self._epoch}-{self._ledger.step} is not the next one"
            )
        apply_plan(self._ledger, plan)

    def settle(self, result: StepResult) -> None:
        """Takes in the result of a step. One of another epoch, or one that was seen before, is dropped.

        Raises ProtocolError for a step that was not published or that comes before its turn, for a finish
        that is not one of :class:`Finish`, and for a request that did not finish where its length ends.
        """
        ledger = self._ledger
        if result.epoch != self._epoch or result.step <= ledger.settled_step:
            return
        if result.step > ledger.settled_step + 1 or not ledger.in_flight:
            raise ProtocolError(
                f"a result of step {result.step}; {ledger.settled_step} settled, {ledger.step} published"
            )
        ledger.settle(result)

    def take_departures(self) -> int:
        """How many requests have departed since the last call: admitted for the first time, or ending before
        they ever were. The bound of the queue counts the others."""
        counters = self._ledger.counters
        count, counters.departures = counters.departures, 0
        return count

    def check_integrity(self) -> list[str]:
        """What is wrong in the state, checked from first principles; empty if it is sound. Slow."""
        return check_integrity(self._ledger, self._limits)

    def snapshot(self) -> CoreSnapshot:
        """The state as plain data, equal on a core that makes plans and on one that follows it. Slow."""
        return take_snapshot(self._ledger)

    def stats(self) -> CoreStats:
        """Counts for metrics and for the load that is published."""
        ledger, requests = self._ledger, self._ledger.requests
        counters = ledger.counters
        waiting = [r for r in (*requests.waiting, *requests.held) if r.name not in requests.ending]
        return CoreStats(
            step=ledger.step,
            steps_in_flight=len(ledger.in_flight),
            waiting=len(waiting),
            waiting_by_tenant=by_tenant(waiting),
            running=ledger.num_running,
            slots_free=len(ledger.free_slots),
            slots_total=self._shape.max_seqs,
            blocks_free=ledger.pool.num_free,
            blocks_cached=ledger.pool.num_cached,
            blocks_total=self._shape.num_blocks,
            preemptions=counters.preemptions,
            prompt_tokens=counters.prompt_tokens,
            prefix_hit_tokens=counters.prefix_hit_tokens,
            output_tokens=counters.output_tokens,
            wasted_rows=counters.wasted_rows,
            late_rows=counters.late_rows,
        )
