"""Who holds which slot and which blocks, and until when."""

from __future__ import annotations

import heapq
import sys
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from albireo.contract.plan import BLOCK_SIZE, GroupShape
from scheduler_svc.core.blocks import BlockPool
from scheduler_svc.core.held import Held
from scheduler_svc.core.queue import KeyedQueue
from scheduler_svc.core.request import Phase, Request, Stay


class ProtocolError(Exception):
    """The results log says what no correct worker can say. The epoch cannot go on."""


@dataclass(slots=True)
class Flight:
    """One step that is published and not settled."""

    step: int
    chunks: list[tuple[Stay, int]]  # with each, the number of tokens whose KV it completes
    leaving: list[Stay] = field(default_factory=list)  # released since; the last that touched them is this


class Ledger:
    """The slot table, the pools behind it, and the fence between releasing and reusing.

    A stay leaves its slot when a plan releases it. Slot and blocks go back to their pools when the last
    step that touched them has settled: at once if it has, else with the flight that waits for it. A
    request that still goes on then (it was preempted) returns to ``waiting``, at its old place.

    Mutated by the draft (enter, grant, move, leave, launch) and by the core (land, move, forget).
    """

    def __init__(self, shape: GroupShape, waiting: KeyedQueue[Request], *, prefix_cache: bool) -> None:
        self.shape = shape
        self.pool = BlockPool(shape.num_blocks)
        self.waiting = waiting
        self.held = Held(waiting)
        self.prefix_cache = prefix_cache
        self.free_slots = list(range(shape.max_seqs))  # a heap: low slots first keeps the table dense
        self.flights: deque[Flight] = deque()  # oldest first, at consecutive steps
        self.step = 0  # the last one published
        self.phases: dict[Phase, dict[int, Stay]] = {
            phase: {} for phase in Phase if phase is not Phase.LEFT
        }  # by slot
        self.listening: dict[int, Stay] = {}  # by incarnation: stays whose results count
        self.released: list[int] = []  # slots that the next plan has to name as released
        self._incarnation = 0

    @property
    def settled_step(self) -> int:
        """The last step whose result is in."""
        return self.step - len(self.flights)

    @property
    def num_running(self) -> int:
        """Requests that hold a slot and go on."""
        return sum(map(len, self.phases.values())) - len(self.phases[Phase.FINISHED])

    def stays(self) -> Iterator[Stay]:
        """All that hold a slot, in no particular order."""
        for phase in self.phases.values():
            yield from phase.values()

    def incoming_blocks(self) -> int:
        """Blocks that become free when all that is in flight has settled: those with no owner that stays."""
        leaving = Counter(b for flight in self.flights for stay in flight.leaving for b in stay.blocks)
        return sum(1 for block, count in leaving.items() if self.pool.owners(block) == count)

    def enter(self, request: Request, prefix: list[int]) -> Stay:
        """Gives a request a free slot and a share of the blocks that hold what its tokens begin with."""
        self.pool.share(prefix)
        self._incarnation += 1
        stay = Stay(
            request=request,
            slot=heapq.heappop(self.free_slots),
            incarnation=self._incarnation,
            tokens=request.tokens,
            blocks=[],
            scheduled=len(prefix) * BLOCK_SIZE,
            settled=len(prefix) * BLOCK_SIZE,
            registered=len(prefix),
            register_at=(len(prefix) + 1) * BLOCK_SIZE if self.prefix_cache else sys.maxsize,
        )
        stay.extend(prefix)
        request.stay = stay
        self.listening[stay.incarnation] = stay
        self.phases[Phase.PREFILLING][stay.slot] = stay
        return stay

    def grant(self, stay: Stay, count: int) -> list[int]:
        """Moves ``count`` free blocks to the end of a stay's block table."""
        blocks = self.pool.take(count)
        stay.extend(blocks)
        return blocks

    def move(self, stay: Stay, phase: Phase) -> None:
        """Puts a stay that holds its slot into another phase that does."""
        del self.phases[stay.phase][stay.slot]
        stay.phase = phase
        self.phases[phase][stay.slot] = stay

    def leave(self, stay: Stay) -> None:
        """The next plan releases the slot."""
        del self.phases[stay.phase][stay.slot]
        stay.phase = Phase.LEFT
        self.released.append(stay.slot)
        if stay.last_step > self.settled_step:
            self.flights[stay.last_step - self.settled_step - 1].leaving.append(stay)
        else:
            self._vacate(stay)

    def forget(self, stay: Stay) -> None:
        """Results of this stay count no more."""
        del self.listening[stay.incarnation]
        stay.request.stay = None

    def launch(self, chunks: list[tuple[Stay, int]]) -> None:
        """The next step is published."""
        self.step += 1
        self.flights.append(Flight(self.step, chunks))

    def settle_chunks(self) -> None:
        """The chunks of the oldest step in flight have run. Comes before its rows are settled."""
        for stay, computed in self.flights[0].chunks:
            stay.settled = computed
            if computed >= stay.register_at:
                self.register(stay)

    def register(self, stay: Stay) -> None:
        """Offers the full settled blocks to the prefix cache."""
        full = stay.settled // BLOCK_SIZE
        for index in range(stay.registered, full):
            self.pool.register(stay.blocks[index], stay.request.key(index))
        stay.registered = full
        stay.register_at = (full + 1) * BLOCK_SIZE

    def distrust(self, stay: Stay) -> None:
        """No prefix may hit this stay's blocks: they may hold what is no number."""
        for block in stay.blocks:
            self.pool.unregister(block)

    def land(self) -> None:
        """The oldest step in flight has settled, rows and all: what waited behind it for reuse is free."""
        for stay in self.flights.popleft().leaving:
            self._vacate(stay)

    def _vacate(self, stay: Stay) -> None:
        self.pool.drop(stay.blocks)
        heapq.heappush(self.free_slots, stay.slot)
        request = stay.request
        if request.stay is not stay:
            return
        if len(request.tokens) >= request.end:
            raise ProtocolError(f"{request.submission.request_id} came to its length end and did not finish")
        self.forget(stay)
        if not request.reason:
            self.waiting.push(request, request.order)
