"""The scheduler's core."""

from __future__ import annotations

from albireo.contract.plan import (
    MAX_BRANCHES,
    Ended,
    Finish,
    GroupShape,
    Plan,
    StepResult,
    Submission,
    branch_names,
    branches,
)
from scheduler_svc.core.blocks import root_key
from scheduler_svc.core.draft import Draft
from scheduler_svc.core.integrity import check_integrity
from scheduler_svc.core.ledger import Ledger, ProtocolError
from scheduler_svc.core.limits import Limits
from scheduler_svc.core.queue import KeyedQueue
from scheduler_svc.core.request import Phase, Request, Stay
from scheduler_svc.core.stats import CoreStats, Counters, by_tenant


class SchedulerCore:
    """Decides what a worker group runs, step by step, for one epoch.

    One thread calls it. It reads no clock: ``now`` is a monotonic time in seconds that the caller gives.

    **Order.** The queue's key is arrival time plus ``priority * priority_seconds``, then the order of
    arrival: a priority buys a head start and no more, so whoever waits comes first in the end. Slots and
    blocks are given in this order, and taken away in the reverse of it.

    **Branches.** A submission with ``n`` above 1 is as many requests, side by side in the order; each has
    its own seed, slot and end. The first computes the prompt, the others share its full blocks and compute
    no more than the tokens after them. A shared block is never written again: that is the copy on write.

    **Optimism.** With more than one plan in flight every request is taken to go on. Ends by length are
    predicted: no row is planned beyond them, and the plan after the last row releases the slot. A stop
    is not: the rows planned beyond it are wasted, the worker leaves them out of its results.

    **One final reason.** Every request that is submitted ends exactly once for a reader of the results
    log who takes the first end he sees: by a row with a finish, or by an ``ended`` of a plan, which
    rank 0 repeats in that plan's result. A finish that settles before the ``ended`` is planned drops the
    cancellation. Once the ``ended`` of step n + 1 is planned, a finish may still come with step n: it
    stands before the ``ended`` in the log, so the reader takes it and ignores the ``ended``; here it is
    a late row.

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
        self._live: dict[str, Request] = {}  # by branch name, from submit to the final reason
        self._waiting: KeyedQueue[Request] = KeyedQueue()
        self._deadlines: KeyedQueue[Request] = KeyedQueue()
        self._ending: dict[str, Request] = {}  # ended by us, until a plan says so
        self._refused: list[str] = []  # never queued; the next plan ends them
        self._ledger = Ledger(shape, self._waiting, prefix_cache=limits.prefix_cache)
        self._window = limits.max_in_flight
        self._counters = Counters()

    def submit(self, submission: Submission, now: float, *, outputs: tuple[int, ...] = ()) -> None:
        """Queues a request. One that is live already under the same id is left as it is.

        ``outputs`` are tokens that it has brought already, in an earlier epoch; a branch then goes on by
        itself, under its own name. Raises ValueError for a request that can never run, or that is over.
        """
        if self._named(submission.request_id):
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
            request = Request(branch, (arrival, self._arrivals), [*prompt, *outputs], end, root)
            family.append(request)
            self._live[branch.request_id] = request
            if submission.timeout_s is not None:
                self._deadlines.push(request, (now + submission.timeout_s, self._arrivals))
        first, *others = family
        if others:
            for request in family:
                request.family = family
        self._waiting.push(first, first.order)
        self._ledger.held.hold(first, others)

    def refuse(self, submission: Submission) -> None:
        """Ends with ERROR what submit did not take, unless another is live under the same id."""
        if self._named(submission.request_id):
            return
        self._refused += branch_names(submission.request_id, submission.n)
        self._counters.departures += submission.n

    def cancel(self, name: str) -> bool:
        """Ends all branches of a request, or the branch of that name, with CANCELLED, unless they finish
        first. False if nothing of that name is (or no more is) live."""
        found = self._named(name)
        for request in found:
            self._end(request, Finish.CANCELLED)
        return bool(found)

    def gateways(self) -> set[str]:
        """Those whose clients wait for a live request."""
        return {request.submission.gateway for request in self._live.values()} - {""}

    def abandon(self, gateway: str) -> int:
        """Ends all requests of a gateway with CANCELLED; returns how many had not ended."""
        found = [r for r in self._live.values() if r.submission.gateway == gateway and not r.reason]
        for request in found:
            self._end(request, Finish.CANCELLED)
        return len(found)

    def expire(self, now: float) -> None:
        """Ends every request whose deadline has come with DEADLINE, wherever it stands."""
        while (first := self._deadlines.peek()) and first[0][0] <= now:
            self._deadlines.remove(first[1])
            self._end(first[1], Finish.DEADLINE)

    def next_deadline(self) -> float | None:
        """When expire has something to do next."""
        first = self._deadlines.peek()
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
        """The next plan, booked as published; past deadlines are seen to first.

        None if there is nothing to do, or if a window of plans waits for its results.
        """
        self.expire(now)
        if len(self._ledger.flights) >= self._window:
            return None
        draft = Draft(self._ledger, self._limits, self._counters, self._epoch)
        ended = self._announce_ended()
        draft.release()
        draft.serve()
        draft.admit()
        return draft.publish(ended)

    def settle(self, result: StepResult) -> None:
        """Takes in what a step brought. One of another epoch, or seen before, is dropped.

        Raises ProtocolError for a step that was not published or that comes before its turn, and for a
        request that did not finish where its length ends.
        """
        ledger = self._ledger
        if result.epoch != self._epoch or result.step <= ledger.settled_step:
            return
        if result.step > ledger.settled_step + 1 or not ledger.flights:
            raise ProtocolError(
                f"a result of step {result.step}; {ledger.settled_step} settled, {ledger.step} published"
            )
        ledger.settle_chunks()
        listening = ledger.listening
        rows = late = 0
        for incarnation, token, finish in zip(result.incarnations, result.ids, result.finishes, strict=True):
            rows += 1
            stay = listening.get(incarnation)
            if stay is None:
                late += 1
                continue
            tokens = stay.tokens
            stay.settled = settled = len(tokens)  # the row computed the newest token's KV
            tokens.append(token)
            if settled >= stay.register_at:
                ledger.register(stay)
            if finish == Finish.ERROR:
                ledger.distrust(stay)
            if finish:
                self._finish(stay)
        self._counters.output_tokens += rows - late
        self._counters.late_rows += late
        ledger.land()

    def take_departures(self) -> int:
        """How many requests have left the waiting state for the first time since the last call: they
        were admitted, or ended before they ever were."""
        count = self._counters.departures
        self._counters.departures = 0
        return count

    def check_integrity(self) -> list[str]:
        """What is wrong in the books, checked from first principles; empty if they are sound. Slow."""
        return check_integrity(self._ledger, self._live, self._ending, self._deadlines, self._limits)

    def stats(self) -> CoreStats:
        """A snapshot."""
        ledger, counters = self._ledger, self._counters
        return CoreStats(
            step=ledger.step,
            steps_in_flight=len(ledger.flights),
            waiting=len(self._waiting) + len(ledger.held),
            waiting_by_tenant=by_tenant([*self._waiting, *ledger.held]),
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

    def _named(self, name: str) -> list[Request]:
        """The live request or branch of that name, and the live branches of the request of that name."""
        names = (name, *branch_names(name, MAX_BRANCHES))
        return [request for name in names if (request := self._live.get(name))]

    def _end(self, request: Request, reason: Finish) -> None:
        if request.reason:
            return
        request.reason = reason
        self._ending[request.submission.request_id] = request
        self._waiting.remove(request)
        self._ledger.held.drop(request)
        if not request.admitted:
            self._counters.departures += 1

    def _announce_ended(self) -> tuple[Ended, ...]:
        ended = [Ended(request_id, request.reason) for request_id, request in self._ending.items()]
        ended += [Ended(request_id, Finish.ERROR) for request_id in self._refused]
        self._refused.clear()
        for request in list(self._ending.values()):
            stay = request.stay
            if stay is not None:
                self._ledger.forget(stay)
                if stay.phase is not Phase.LEFT:
                    self._ledger.leave(stay)
            self._forget(request)
        return tuple(ended)

    def _finish(self, stay: Stay) -> None:
        self._counters.wasted_rows += stay.scheduled - stay.settled
        self._ledger.forget(stay)
        if stay.phase is not Phase.LEFT:
            self._ledger.move(stay, Phase.FINISHED)
        self._forget(stay.request)

    def _forget(self, request: Request) -> None:
        request_id = request.submission.request_id
        del self._live[request_id]
        self._ending.pop(request_id, None)
        self._deadlines.remove(request)
