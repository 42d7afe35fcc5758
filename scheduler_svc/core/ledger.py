"""The ledger of one group: its slots, blocks and steps in flight, and the only code that changes them.

The group's core and the plan builder call it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from albireo.contract.plan import (
    BLOCK_SIZE,
    Admission,
    Chunk,
    Ended,
    Finish,
    Grant,
    GroupShape,
    StepResult,
    table_digest,
)
from scheduler_svc.core.blocks import BlockPool
from scheduler_svc.core.decode_steps import DecodeSteps
from scheduler_svc.core.errors import ProtocolError
from scheduler_svc.core.free_slots import FreeSlots
from scheduler_svc.core.pending import Pending
from scheduler_svc.core.request import DEATHS_TO_RUN_ALONE, Occupancy, Phase
from scheduler_svc.core.request_table import CHARGE_STEPS, RequestTable
from scheduler_svc.core.stats import Counters
from scheduler_svc.core.step_in_flight import StepInFlight
from scheduler_svc.core.waiting_end import WaitingEnd

FINISHES = frozenset(Finish)


class Ledger:
    """Slots, blocks and steps in flight of a group, as a fold over its logs. All ledgers share the table of
    the requests.

    A result changes it by :meth:`settle`, and the fields of a plan by one method each (:meth:`end` to
    :meth:`schedule_chunk`), followed by :meth:`publish_step`. The plan builder calls these methods as it
    decides, ``apply_plan`` calls them for a finished plan, in the same order; they raise ProtocolError if the
    plan does not fit the state, which is undefined then. The plan builder, the audit and the snapshot read
    the attributes; no code but this writes them.

    A slot that a plan releases, and its blocks, are free once the last step that reads or writes them has
    settled. A request that has not ended by then was preempted: it waits again, before those that are new.
    """

    def __init__(
        self, shape: GroupShape, requests: RequestTable, pending: Pending, *, prefix_cache: bool
    ) -> None:
        self.shape = shape
        self.prefix_cache = prefix_cache
        self.pool = BlockPool(shape.num_blocks)
        self.pending = pending
        self.requests = requests
        self.counters = Counters()
        self.free_slots = FreeSlots(shape.max_seqs)
        self.occupied: dict[int, Occupancy] = {}  # by slot
        self.phases: dict[Phase, dict[int, Occupancy]] = {
            phase: {} for phase in Phase if phase is not Phase.RELEASED
        }  # the same ones by phase, then by slot
        self.due: list[Occupancy] = []  # rows of the last step that need a decision before another one
        self._decode_steps = DecodeSteps()
        self.receiving: dict[int, Occupancy] = {}  # by incarnation: those whose results count
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
        return len(self.occupied) - len(self.phases[Phase.FINISHED])

    def digest(self) -> int:
        """``Plan.digest`` of the last published step."""
        return table_digest(
            (o.slot, o.incarnation, o.scheduled, len(o.blocks), o.blocks[-1] if o.blocks else -1)
            for _, o in sorted(self.occupied.items())
        )

    # -- the plans ----------------------------------------------------------------------------------

    def end(self, ended: Ended) -> None:
        """A request with an occupancy here ends by the scheduler's decision. The same plan releases its
        slot."""
        request = self.requests.live.get(ended.request_id)
        if request is None or request.occupancy is None or request.group is not self.pending:
            raise ProtocolError(f"{ended.request_id} is ended and has no occupancy")
        self._next.ended.append(WaitingEnd(request.name, ended.reason, request.num_outputs))
        self._stop_receiving(request.occupancy)
        self.requests.remove(request)

    def release(self, slot: int) -> None:
        """A request leaves its slot: it has ended, ends by length in a step in flight, or is preempted."""
        occupancy = self._occupancy(slot)
        if occupancy.request.occupancy is occupancy and not occupancy.at_length_end:
            self.counters.preemptions += 1
        del self.occupied[slot]
        self._move(occupancy, Phase.RELEASED)
        if occupancy.last_step > self.settled_step:
            self.in_flight[occupancy.last_step - self.settled_step - 1].released.append(occupancy)
        else:
            self._free(occupancy)

    def pause(self, slot: int) -> None:
        """A slot stops decoding until it gets a block; it keeps its state."""
        self._move(self._occupancy(slot, Phase.DECODING), Phase.PAUSED)

    def resume(self, slot: int) -> None:
        """A paused slot decodes again."""
        self._move(self._occupancy(slot, Phase.PAUSED), Phase.DECODING)

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
        if self.requests.admit(request, self.pending, num_cached=admission.num_cached):
            self.counters.prompt_tokens += len(request.tokens)
            self.counters.prefix_hit_tokens += admission.num_cached
        if request.runs_alone:
            self.pending.alone = request
        occupancy = Occupancy.of(request, admission)
        request.occupancy = occupancy
        self.receiving[occupancy.incarnation] = occupancy
        self.occupied[occupancy.slot] = self.phases[Phase.PREFILLING][occupancy.slot] = occupancy
        return occupancy

    def grant(self, grants: Iterable[Grant]) -> None:
        """Appends to block tables: shared blocks for a prefix that has KV already, then free ones."""
        free: list[int] = []  # blocks that the slots write, so that each must be free
        for slot, blocks in grants:
            occupancy = self._occupancy(slot)
            # Shared blocks come in the first grant alone: ``scheduled`` is still the admission's
            # ``num_cached`` there.
            if not occupancy.blocks and (shared := occupancy.scheduled // BLOCK_SIZE):
                self.pool.share(blocks[:shared])
                free += blocks[shared:]
            else:
                free += blocks
            occupancy.append_blocks(blocks)
            self._decode_steps.expect(occupancy)
        self.pool.take(free)

    def schedule_chunk(self, chunk: Chunk) -> None:
        """The next step prefills a part of a slot's tokens; after the last part the slot decodes."""
        occupancy = self._occupancy(chunk.slot, Phase.PREFILLING)
        known, capacity = len(occupancy.tokens), len(occupancy.blocks) * BLOCK_SIZE
        scheduled = chunk.start + chunk.count
        if chunk.start != occupancy.scheduled or not chunk.start < scheduled <= min(known, capacity):
            raise ProtocolError(f"slot {chunk.slot} cannot prefill {chunk.count} tokens from {chunk.start}")
        occupancy.scheduled_before, occupancy.last_step_before = scheduled, self._next.step
        self._next.chunks.append((occupancy, scheduled))
        self._next.prefill_tokens += chunk.count
        if scheduled == known:
            self._joining.append(occupancy)

    def publish_step(self) -> None:
        """The plan is complete: its decoding rows are scheduled, and its step is in flight."""
        step = self._next.step
        self.due = due = self._decode_steps.publish(step, self.phases[Phase.DECODING])
        self._next.full = tuple(due)
        for occupancy in self._joining:
            self._move(occupancy, Phase.DECODING)
            self.requests.prompt_computed(occupancy.request)
            if occupancy.scheduled >= occupancy.row_limit:
                due.append(occupancy)
        self._joining.clear()
        self.step = self.counters.step = step
        self.in_flight.append(self._next)
        self._next = StepInFlight(step + 1)

    # -- the results --------------------------------------------------------------------------------

    def settle(self, result: StepResult) -> None:
        """The result of the oldest step in flight. Raises ProtocolError for a finish that does not exist, and
        for a request that came to its length end and did not finish."""
        receiving, late = self.receiving, 0
        for incarnation, token in zip(result.incarnations, result.ids, strict=True):
            row = receiving.get(incarnation)
            if row is None:
                late += 1
            else:
                row.tokens.append(token)
        self.counters.output_tokens += len(result.ids) - late
        self.counters.late_rows += late
        step = self.in_flight[0]
        self._settle_blocks(step)
        if any(result.finishes):
            for incarnation, finish in zip(result.incarnations, result.finishes, strict=True):
                if finish and (row := receiving.get(incarnation)):
                    self._finish(row, finish)
        self.in_flight.popleft()
        for occupancy in step.released:
            self._free(occupancy)
        alone = self.pending.alone
        if alone is not None and alone.occupancy is not None and alone.occupancy.progressed:
            alone.deaths = 0
            self.pending.alone = None

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
            self._stop_receiving(occupancy)
            self.requests.requeue(request)
            if request.deaths > DEATHS_TO_RUN_ALONE:
                self.requests.fail_branches(request)
            elif len(request.tokens) >= request.end:  # its last row was no finish, which is the group's fault
                self.requests.schedule_end(request, Finish.ERROR)
        for request in list(self.pending.placed):
            self.requests.give_back(request)
        self.requests.lost += [end for step in self.in_flight for end in step.ended]

    # -- parts of the above -------------------------------------------------------------------------

    def _settle_blocks(self, step: StepInFlight) -> None:
        """The chunks of a step have KV, and so have the blocks that its rows have filled."""
        for occupancy, computed in step.chunks:
            occupancy.computed = computed
            if self.prefix_cache:
                occupancy.register_blocks(self.pool, computed)
        if self.prefix_cache:
            for occupancy in step.full:
                if occupancy.request.occupancy is occupancy:  # else its row does not count
                    occupancy.register_blocks(self.pool, len(occupancy.tokens) - 1)
        if step.step % CHARGE_STEPS == 0:
            for occupancy in self.receiving.values():
                self.requests.charge_outputs(occupancy.request)

    def _finish(self, occupancy: Occupancy, finish: int) -> None:
        if finish not in FINISHES:
            raise ProtocolError(f"{occupancy.request.name} finished with {finish}, which is not a finish")
        self.counters.wasted_rows += occupancy.scheduled - occupancy.settled
        if finish == Finish.ERROR:  # the KV may be NaN: no prefix may hit it
            for block in occupancy.blocks:
                self.pool.unregister(block)
        self._stop_receiving(occupancy)
        if occupancy.phase is not Phase.RELEASED:
            self._move(occupancy, Phase.FINISHED)
        self.requests.remove(occupancy.request)

    def _free(self, occupancy: Occupancy) -> None:
        """Slot and blocks of a released occupancy can be used again."""
        self.pool.drop(occupancy.blocks)
        self.free_slots.put(occupancy.slot)
        request = occupancy.request
        if request.occupancy is occupancy:
            if len(request.tokens) >= request.end:
                raise ProtocolError(f"{request.name} came to its length end and did not finish")
            if occupancy.progressed:
                request.deaths = 0
            self._stop_receiving(occupancy)
            self.requests.requeue(request)

    def _stop_receiving(self, occupancy: Occupancy) -> None:
        """Further results of this occupancy do not count."""
        del self.receiving[occupancy.incarnation]
        occupancy.request.occupancy = None

    def _occupancy(self, slot: int, phase: Phase | None = None) -> Occupancy:
        occupancy = (self.phases[phase] if phase else self.occupied).get(slot)
        if occupancy is None:
            raise ProtocolError(f"slot {slot} is not {phase.name if phase else 'occupied'}")
        return occupancy

    def _move(self, occupancy: Occupancy, phase: Phase) -> None:
        del self.phases[occupancy.phase][occupancy.slot]
        self._decode_steps.end(occupancy)
        occupancy.phase = phase
        if phase is not Phase.RELEASED:
            self.phases[phase][occupancy.slot] = occupancy
        if phase is Phase.DECODING:
            self._decode_steps.begin(occupancy)
