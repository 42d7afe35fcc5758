"""The interface of the scheduler's core: the class :class:`SchedulerCore`.

The service calls it, from one thread.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import replace

from albireo.contract.plan import (
    MAX_BRANCHES,
    Finish,
    GroupShape,
    Submission,
    branch_names,
    branches,
)
from scheduler_svc.core.blocks import root_key
from scheduler_svc.core.group_core import GroupCore
from scheduler_svc.core.integrity import IntegrityCheck
from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.limits import Limits
from scheduler_svc.core.pending import Changes, Pending
from scheduler_svc.core.placement import Placement
from scheduler_svc.core.request import Request
from scheduler_svc.core.request_table import RequestTable
from scheduler_svc.core.snapshot import CoreSnapshot, take_snapshot
from scheduler_svc.core.speed import Speed
from scheduler_svc.core.stats import CoreStats, Counters, core_stats
from scheduler_svc.core.tally import TenantTally
from scheduler_svc.core.waiting_end import WaitingEnd


class SchedulerCore:
    """Decides what the groups of a model run, for one epoch; or follows the core that decides.

    It has the requests of the model and their queue; a :class:`GroupCore` has the slots, blocks and steps of
    one group. It reads no clock: ``now`` is a time in seconds that the caller gives, in the service that of
    the store. A turn of the service settles and receives what has come, then calls :meth:`expire`,
    :meth:`take_ended`, :meth:`place`, and ``plan`` of the groups that are :attr:`touched`.

    **State.** It is a fold over the logs: a submission (:meth:`submit`), a group that comes or goes
    (:meth:`join`, :meth:`leave`), an end of a waiting request (:meth:`take_ended`), a plan and a result
    change it, and nothing else does. :meth:`cancel`, :meth:`abandon`, :meth:`expire` and :meth:`refuse` only
    record what the next plan or notice will say, :meth:`place` what the next plan of a group will admit.

    **Following.** A core that follows another one gets the same submissions, joins, leaves, plans, results
    and ends of waiting requests, and can go on with plans of its own at any time. It needs:

    - the same shapes, limits, epoch and salt;
    - a request, by :meth:`submit` with the same ``outputs``, before the plan that admits or ends it; it may
      know more requests than the core that made the plan;
    - before each plan of a group, exactly the results of that group that had settled when it was made: those
      up to ``StepTiming.settled_step`` of its log entry; before a :meth:`leave`, all of them.

    The times given to :meth:`submit` determine the order of the queue and the deadlines, so they matter only
    to plans that it makes itself. It ends no request by itself: an end that :meth:`cancel` and the like have
    recorded is announced by the first plan or notice that it makes, unless one that it took over has
    announced one, or the request has finished. Its prefix caches have the same content, but their own order
    of eviction.

    **Order.** Requests are placed in the order of the queue (``fair_queue.py``). In a group, blocks are given
    in the order of admission, and taken away in the reverse of it: neither a priority nor how long a request
    has waited counts against one of another tenant that runs.

    **Branches.** A submission with ``n`` above 1 is as many requests, one after the other in the order; each
    has its own seed, slot and end. The first computes the prompt, the others share its full blocks where they
    are in the same group, and compute no more than the tokens after them. A shared block is never written
    again, so none is copied.

    **One final reason.** Every submitted request ends exactly once for a reader of the logs who takes the
    first end: by a row with a finish, by an ``ended`` of a plan, which rank 0 repeats in that plan's result,
    or by a :class:`WaitingEnd`. A finish that settles before the ``ended`` is planned cancels the ``ended``.
    Once the ``ended`` of step n + 1 is planned, a finish may still come with step n: it is before the
    ``ended`` in the log, so the reader takes it and ignores the ``ended``; here it is a late row.

    **Deaths.** A request that was in flight in groups that died, several times in a row, runs alone next, and
    ends with ERROR if that group dies too; so do the other branches of its prompt that have not run, or are
    suspected as well.
    """

    def __init__(self, limits: Limits, *, epoch: int, salt: bytes) -> None:
        """``salt`` seeds the keys of the prefix caches."""
        self._limits = limits
        self._epoch = epoch
        self._salt = salt
        self._arrivals = 0
        self._longest = 0  # the largest max_model_len of a group so far; 0 = there was none
        self._requests = RequestTable(
            prefill_weight=limits.prefill_weight, decode_weight=limits.decode_weight
        )
        self._changes = Changes()
        self._groups: dict[str, GroupCore] = {}
        self._by_pending: dict[Pending, GroupCore] = {}
        self._left = Counters()
        self._placement = Placement(self._requests, self._by_pending, self._changes)

    # -- groups --------------------------------------------------------------------------------------

    @property
    def groups(self) -> Mapping[str, GroupCore]:
        """Those that are there, by name, in the order in which they joined."""
        return self._groups

    @property
    def touched(self) -> list[GroupCore]:
        """The groups whose ``plan`` may have something to do."""
        return [self._by_pending[pending] for pending in self._changes.to_plan]

    def join(self, name: str, shape: GroupShape, *, speed: Speed | None = None) -> GroupCore:
        """A group is there, empty. ``speed``: what it has measured at its start.

        The first one that ever joins gives requests that came before it their longest length; what is too
        long for it ends with ERROR. Raises ValueError if the limits do not fit it, or if its name is taken.
        """
        if name in self._groups:
            raise ValueError(f"there is a group {name} already")
        shape = self._limits.held(shape)
        limits = self._limits.of_group(shape)
        ledger = Ledger(shape, self._requests, Pending(self._changes), prefix_cache=limits.prefix_cache)
        group = GroupCore(name, ledger, limits, speed or Speed(), epoch=self._epoch)
        self._groups[name] = self._by_pending[ledger.pending] = group
        self._placement.join(group)
        self._requests.shares.slots += limits.max_num_seqs
        first, self._longest = not self._longest, max(self._longest, shape.max_model_len)
        self._note_sole()
        if first:
            for request in list(self._requests.live.values()):
                self._bound(request)
        return group

    def leave(self, group: GroupCore, *, died: bool) -> None:
        """A group goes, once all its results are in: its requests go on elsewhere, from the tokens that they
        have. ``died``: not on purpose, so that one of them may be the cause. The group is not to be used any
        more."""
        del self._groups[group.name]
        del self._by_pending[group.ledger.pending]
        self._placement.leave(group)
        group.ledger.leave(died=died)
        self._requests.shares.slots -= group.limits.max_num_seqs
        self._left.add(group.ledger.counters)
        self._note_sole()
        for groups in (self._changes.to_plan, self._changes.to_place, self._changes.timed):
            groups.pop(group.ledger.pending, None)

    # -- requests ------------------------------------------------------------------------------------

    def submit(self, submission: Submission, now: float, *, outputs: tuple[int, ...] = ()) -> None:
        """Queues a request. One that is live already under the same id is left as it is.

        ``outputs`` are tokens that it has already brought, in an earlier epoch; a branch then continues by
        itself, under its own name. Raises ValueError for a request that can never run, or that is over.
        """
        if self._requests.named(submission.request_id):
            return
        prompt, longest = submission.prompt, self._longest
        if not 1 <= submission.n <= (1 if outputs else MAX_BRANCHES):
            raise ValueError(f"{submission.n} branches with {len(outputs)} outputs")
        if not prompt or (longest and len(prompt) >= longest):
            raise ValueError(f"a prompt of {len(prompt)} tokens: 1 to {longest - 1} can run")
        end = len(prompt) + submission.sampling.max_tokens
        if len(prompt) + len(outputs) >= (min(end, longest) if longest else end):
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
        self._requests.add(family, None if submission.timeout_s is None else now + submission.timeout_s)
        if longest:
            for request in family:
                self._bound(request)

    def refuse(self, submission: Submission) -> None:
        """Ends with ERROR what submit did not accept, unless another is live under the same id. One that is
        submitted under that id afterwards is live and goes on."""
        if not self._requests.named(submission.request_id):
            names = branch_names(submission.request_id, submission.n)
            self._requests.refuse(names, submission.tenant)

    def cancel(self, name: str) -> bool:
        """Ends all branches of a request, or the branch of that name, with CANCELLED, unless they finish
        first. False if no request of that name is live."""
        found = self._requests.named(name)
        for request in found:
            self._requests.schedule_end(request, Finish.CANCELLED)
        return bool(found)

    def gateways(self) -> set[str]:
        """Those whose clients wait for a live request."""
        return {request.submission.gateway for request in self._requests.live.values()} - {""}

    def abandon(self, gateway: str) -> int:
        """Ends all requests of a gateway with CANCELLED; returns how many were not ending already."""
        found = [
            request
            for request in self._requests.live.values()
            if request.submission.gateway == gateway and not request.ending
        ]
        for request in found:
            self._requests.schedule_end(request, Finish.CANCELLED)
        return len(found)

    def give_up(self) -> int:
        """Ends all requests with ERROR; returns how many were not ending already."""
        found = [request for request in self._requests.live.values() if not request.ending]
        for request in found:
            self._requests.schedule_end(request, Finish.ERROR)
        return len(found)

    def expire(self, now: float) -> None:
        """Ends every request whose deadline has come with DEADLINE, running or not; touches the groups that
        idle and can write more blocks to their tiers by now."""
        self._requests.expire(now)
        self._changes.expire(now)

    def next_deadline(self) -> float | None:
        """When expire has something to do next."""
        first = self._requests.deadlines.peek()
        times = [*self._changes.timed.values(), *([first[0][0]] if first else ())]
        return min(times, default=None)

    def take_ended(self) -> tuple[WaitingEnd, ...]:
        """Ends the requests that wait without an occupancy and whose end is decided, and refused submissions:
        what the next notice has to say."""
        return self._requests.take_ended()

    def apply_ended(self, ended: Iterable[WaitingEnd]) -> None:
        """Takes over what another core has handed out; see **Following**. Raises ProtocolError where it does
        not fit the state; the core must not be used any more then."""
        for end in ended:
            self._requests.apply_ended(end)

    def place(self) -> None:
        """Hands waiting requests to groups that have a slot and blocks for them; their next plans admit them.
        Where there is only one group, its plans admit from the queue."""
        self._placement.place()

    def take_departures(self) -> int:
        """How many requests have departed since the last call: admitted for the first time, or ending before
        they ever were. The bound of the queue counts the others."""
        count, self._requests.departures = self._requests.departures, 0
        return count

    def take_tallies(self) -> dict[str, TenantTally]:
        """What became of the tenants' requests since the last call; tenants without any are left out."""
        tallies, self._requests.tallies = self._requests.tallies, {}
        return tallies

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Shares of the tenants in what is served from now on, above 0; 1 for those not named."""
        self._requests.queue.set_weights(weights)
        self._requests.shares.set_weights(weights)

    # -- looking at it -------------------------------------------------------------------------------

    def check_integrity(self) -> list[str]:
        """What is wrong in the state, checked from first principles; empty if it is sound. Slow."""
        check = self.begin_check()
        while not check.advance():
            pass
        return check.violations

    def begin_check(self) -> IntegrityCheck:
        """The same check in parts, none of which takes long."""
        return IntegrityCheck(self._requests, self._groups)

    def snapshot(self) -> CoreSnapshot:
        """The state as plain data, equal on a core that makes plans and on one that follows it. Slow."""
        groups = {name: group.snapshot() for name, group in self._groups.items()}
        return take_snapshot(self._requests, groups)

    def stats(self) -> CoreStats:
        """Counts for metrics and for the load that is published."""
        waiting = (request for request in self._requests.waiting() if not request.ending)
        return core_stats(waiting, (group.stats() for group in self._groups.values()), self._left)

    def _note_sole(self) -> None:
        """Where the only group can hold every request, nothing has to be placed."""
        groups = list(self._groups.values())
        sole = len(groups) == 1 and groups[0].shape.max_model_len == self._longest
        self._requests.sole = groups[0].ledger.pending if sole else None

    def _bound(self, request: Request) -> None:
        """A request is no longer than the largest group takes. Its number of tokens says so to every group,
        so that it ends at the same length wherever it runs."""
        if request.end > self._longest:
            request.end = self._longest
            sampling, num_prompt = request.submission.sampling, len(request.submission.prompt)
            sampling = replace(sampling, max_tokens=max(1, self._longest - num_prompt))
            request.submission = replace(request.submission, sampling=sampling)
        if len(request.tokens) >= request.end:
            self._requests.schedule_end(request, Finish.ERROR)
