"""The ledger of one group: its slots, blocks and steps in flight, and the only code that changes them.

The group's core and the plan builder call it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from albireo.contract.plan import (
    BLOCK_SIZE,
    Admission,
    Chunk,
    Ended,
    Finish,
    Grant,
    GroupShape,
    StepResult,
)
from albireo.contract.tiers import Fetch, Offload, Span, Spill
from scheduler_svc.core.blocks import BlockPool
from scheduler_svc.core.errors import ProtocolError
from scheduler_svc.core.free_slots import FreeSlots
from scheduler_svc.core.occupancies import Occupancies
from scheduler_svc.core.pending import Pending
from scheduler_svc.core.request import DEATHS_TO_RUN_ALONE, Occupancy, Phase
from scheduler_svc.core.request_table import CHARGE_STEPS, RequestTable
from scheduler_svc.core.settled_blocks import SettledBlocks
from scheduler_svc.core.stats import Counters
from scheduler_svc.core.step_in_flight import StepInFlight
from scheduler_svc.core.stream_ledger import StreamLedger
from scheduler_svc.core.tier_ledger import TierLedger
from scheduler_svc.core.unfetched import Unfetched
from scheduler_svc.core.waiting_end import WaitingEnd

FINISHES = frozenset(Finish)


class Ledger:
    """Slots, blocks and steps in flight of a group, as a fold over its logs. All ledgers share the table of
    the requests.

    A result changes it by :meth:`settle`, and the fields of a plan by one method each (:meth:`end` to
    :meth:`schedule_span`), followed by :meth:`publish_step`. The plan builder calls
    these methods as it decides, ``apply_plan`` calls them for a finished plan, in the same order; they raise
    ProtocolError if the plan does not fit the state, which is undefined then. The plan builder, the audit and
    the snapshot read the attributes; no code but this writes them.

    A slot that a plan releases, and its blocks, are free once the last step that reads or writes them has
    settled. A request that has not ended by then was preempted: it waits again, before those that are new.
    """

    def __init__(
        self, shape: GroupShape, requests: RequestTable, pending: Pending, *, prefix_cache: bool
    ) -> None:
        self.shape = shape
        self.prefix_cache = prefix_cache
        self.pool = BlockPool(shape.num_blocks)
        self.tiers = TierLedger(shape.tiers if prefix_cache else (), self.pool)
        self._blocks = SettledBlocks(self.pool, self.tiers, prefix_cache=prefix_cache)
        self.pending, self.requests = pending, requests
        self.counters = Counters()
        self.free_slots = FreeSlots(shape.max_seqs)
        self._slots = Occupancies()
        self.occupied, self.phases = self._slots.by_slot, self._slots.phases
        self.receiving = self._slots.receiving
        self._streams = StreamLedger(self._slots, self.pool, self.tiers, shape.num_layers)
        self._unfetched = Unfetched(shape, self._slots, self.tiers, requests)
        self.due: list[Occupancy] = []  # rows of the last step that need a decision before another one
        self.in_flight: deque[StepInFlight] = deque()  # oldest first, consecutive steps
        self.step = 0  # the last one published
        self.incarnation = 0  # the last one given
        self._next = StepInFlight(1)  # step ``self.step + 1``: filled while its plan is built or applied
        self._joining: list[Occupancy] = []  # whose last chunk runs in ``_next``: they decode in later steps

    @property
    def settled_step(self) -> int:
        """The last step whose result is in."""
        return self.step - len(self.in_flight)

    @property
    def num_running(self) -> int:
        """Requests that hold a slot and have not finished."""
        return self._slots.num_running

    def digest(self) -> int:
        """``Plan.digest`` of the last published step."""
        return self._slots.digest()

    # -- the plans ----------------------------------------------------------------------------------

    def end(self, ended: Ended) -> None:
        """A request with an occupancy here ends by the scheduler's decision. The same plan releases its
        slot."""
        request = self.requests.live.get(ended.request_id)
        if request is None or request.occupancy is None or request.group is not self.pending:
            raise ProtocolError(f"{ended.request_id} is ended and has no occupancy")
        self._next.ended.append(WaitingEnd(request.name, ended.reason, request.num_outputs))
        self._slots.stop_receiving(request.occupancy)
        self.requests.remove(request)

    def release(self, slot: int) -> None:
        """A request leaves its slot: it has ended, ends by length in a step in flight, or is preempted."""
        occupancy = self._slots.find(slot)
        if occupancy.request.occupancy is occupancy and not occupancy.at_length_end:
            self.counters.preemptions += 1
        self._slots.move(occupancy, Phase.RELEASED)
        if occupancy.last_step > self.settled_step:
            self.in_flight[occupancy.last_step - self.settled_step - 1].released.append(occupancy)
        else:
            self._free(occupancy)

    def pause(self, slot: int) -> None:
        """A slot stops decoding until it gets a block; it keeps its state."""
        self._slots.move(self._slots.find(slot, Phase.DECODING), Phase.PAUSED)

    def resume(self, slot: int) -> None:
        """A paused slot decodes again."""
        self._slots.move(self._slots.find(slot, Phase.PAUSED), Phase.DECODING)

    def admit(self, admission: Admission) -> Occupancy:
        """A waiting request gets a free slot. The blocks of its prefix come with its first grant."""
        request = self.requests.live.get(admission.request_id)
        if request is None or not self.requests.waits(request):
            raise ProtocolError(f"{admission.request_id} is admitted and does not wait")
        if (
            admission.incarnation <= self.incarnation
            or admission.tokens != request.known
            or admission.num_cached not in range(0, len(request.tokens), BLOCK_SIZE)
        ):
            raise ProtocolError(f"{request.name} is admitted with other data than it has")
        self.free_slots.take(admission.slot)
        self.incarnation = admission.incarnation
        first = self.requests.admit(request, self.pending, num_cached=admission.num_cached)
        if first:
            self.counters.prompt_tokens += len(request.tokens)
            self.counters.prefix_hit_tokens += admission.num_cached
        if request.runs_alone:
            self.pending.alone = request
        occupancy = Occupancy.of(request, admission, first=first)
        request.occupancy = occupancy
        self._slots.add(occupancy)
        return occupancy

    def spill(self, spill: Spill) -> None:
        """Blocks are copied to a tier."""
        self.tiers.spill(spill, self._streams.uncached(spill))

    def offload(self, offload: Offload) -> None:
        """The next blocks of a slot are read from frames from now on. Those that it has are free once the
        last step that uses them has settled."""
        occupancy, blocks = self._streams.offload(offload)
        if occupancy.last_step > self.settled_step:
            self.in_flight[occupancy.last_step - self.settled_step - 1].left += blocks
        else:
            self.pool.drop(blocks)

    def fetch(self, fetch: Fetch) -> None:
        """A slot that the same plan has admitted gets blocks that are filled from a tier, with its first
        grant."""
        occupancy = self._slots.find(fetch.slot, Phase.PREFILLING)
        self.tiers.fetch(occupancy, fetch)
        occupancy.last_step_before = self._next.step

    def grant(self, grants: Iterable[Grant]) -> None:
        """Appends to block tables: shared blocks for a prefix that has KV already, then free ones. Of the
        prefix those are free that are fetched."""
        free: list[int] = []  # blocks that the slots write, so that each must be free
        for slot, blocks in grants:
            occupancy = self._slots.find(slot)
            # Shared blocks come in the first grant alone: ``scheduled`` is still the admission's
            # ``num_cached`` there.
            if not occupancy.blocks and (shared := occupancy.scheduled // BLOCK_SIZE - occupancy.streamed):
                prefix: Sequence[int] = blocks[:shared]
                if occupancy.fetching is not None:
                    prefix, fetched = self.tiers.split(occupancy, prefix)
                    free += fetched
                self.pool.share(prefix)
                free += blocks[shared:]
            else:
                free += blocks
            self._slots.append_blocks(occupancy, blocks)
        if self.tiers.directories:
            self.tiers.regrant(free)
        self.pool.take(free)

    def schedule_chunk(self, chunk: Chunk) -> None:
        """The next step prefills a part of a slot's tokens; after the last part the slot decodes."""
        occupancy = self._slots.find(chunk.slot, Phase.PREFILLING)
        known, capacity = len(occupancy.tokens), len(occupancy.blocks) * BLOCK_SIZE
        scheduled = chunk.start + chunk.count
        if chunk.start != occupancy.scheduled or not chunk.start < scheduled <= min(known, capacity):
            raise ProtocolError(f"slot {chunk.slot} cannot prefill {chunk.count} tokens from {chunk.start}")
        occupancy.scheduled_before, occupancy.last_step_before = scheduled, self._next.step
        self._next.chunks.append((occupancy, scheduled))
        self._next.prefill_tokens += chunk.count
        if scheduled == known:
            self._joining.append(occupancy)

    def schedule_span(self, span: Span) -> None:
        """The next step runs some layers of the next rows of a streamed slot."""
        self._streams.schedule(span, self._next)

    def publish_step(self) -> None:
        """The plan is complete: its decoding rows are scheduled, and its step is in flight."""
        self.due = due = self._slots.publish(step := self._next.step)
        self._next.full, self._next.rows = tuple(due), len(self.phases[Phase.DECODING])
        for occupancy in self._joining:
            self._slots.move(occupancy, Phase.DECODING)
            if occupancy.fetching is None:  # else it is not sure that the prompt will have been computed
                self.requests.prompt_computed(occupancy.request)
            if occupancy.scheduled >= occupancy.row_limit:
                due.append(occupancy)
        self._joining.clear()
        if self.tiers.directories:
            self.tiers.publish(self._next)
        self.step = self.counters.step = step
        self.in_flight.append(self._next)
        self._next = StepInFlight(step + 1)

    # -- the results --------------------------------------------------------------------------------

    def settle(self, result: StepResult) -> None:
        """The result of the oldest step in flight. Raises ProtocolError for a finish that does not exist, and
        for a request that came to its length end and did not finish."""
        step = self.in_flight[0]
        if self.tiers.directories:
            self._unfetched.count_lost(self.tiers.settle(step, result))
            if result.unfetched:
                self._unfetched.drop(step, frozenset(result.unfetched))
        receiving, late = self.receiving, self._slots.append_tokens(result)
        self.counters.output_tokens += len(result.ids) - late
        self.counters.late_rows += late
        for occupancy in self._blocks.settle(step):
            if occupancy.request.occupancy is occupancy and occupancy.scheduled >= occupancy.prefill:
                self.requests.prompt_computed(occupancy.request)
        if step.step % CHARGE_STEPS == 0:
            for occupancy in receiving.values():
                self.requests.charge_outputs(occupancy.request)
        if any(result.finishes):
            for incarnation, finish in zip(result.incarnations, result.finishes, strict=True):
                if finish and (row := receiving.get(incarnation)):
                    self._finish(row, finish)
        self.in_flight.popleft()
        self.pool.drop(step.left)
        for occupancy in step.released:
            self._free(occupancy)
        self.pending.end_isolation()

    # -- the end of the group -----------------------------------------------------------------------

    def leave(self, *, died: bool) -> None:
        """The group is given up, once all its results are in: its requests wait again, or end. A request that
        had steps in flight in too many groups that died ends with ERROR."""
        for occupancy in list(self.receiving.values()):
            request = occupancy.request
            if occupancy.progressed:
                request.deaths = 0
            elif died and occupancy.last_step > self.settled_step:
                request.deaths += 1
                self.requests.isolates |= request.runs_alone
            self._slots.stop_receiving(occupancy)
            self.requests.requeue(request)
            if request.deaths > DEATHS_TO_RUN_ALONE:
                self.requests.fail_branches(request)
            elif len(request.tokens) >= request.end:  # its last row was no finish, which is the group's fault
                self.requests.schedule_end(request, Finish.ERROR)
        for request in list(self.pending.placed):
            self.requests.give_back(request)
        self.requests.lost += [end for step in self.in_flight for end in step.ended]

    # -- parts of the above -------------------------------------------------------------------------

    def _finish(self, occupancy: Occupancy, finish: int) -> None:
        if finish not in FINISHES:
            raise ProtocolError(f"{occupancy.request.name} finished with {finish}, which is not a finish")
        self.counters.wasted_rows += occupancy.scheduled - occupancy.settled
        if finish == Finish.ERROR:
            self._blocks.invalidate(occupancy)
        self._slots.stop_receiving(occupancy)
        if occupancy.phase is not Phase.RELEASED:
            self._slots.move(occupancy, Phase.FINISHED)
        self.requests.remove(occupancy.request)

    def _free(self, occupancy: Occupancy) -> None:
        """Slot and blocks of a released occupancy can be used again."""
        self._blocks.drop(occupancy)
        self.free_slots.put(occupancy.slot)
        request = occupancy.request
        if request.occupancy is occupancy:
            if len(request.tokens) >= request.end:
                raise ProtocolError(f"{request.name} came to its length end and did not finish")
            if occupancy.progressed:
                request.deaths = 0
            self._slots.stop_receiving(occupancy)
            self.requests.requeue(request)
