"""The audit of the scheduler's state: recounts it and lists what is wrong.

The core calls it, for the published load of the scheduler and for tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from albireo.contract.plan import BLOCK_SIZE
from scheduler_svc.core.blocks import block_key
from scheduler_svc.core.group_core import GroupCore
from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.limits import Limits
from scheduler_svc.core.request import Occupancy, Phase, Request
from scheduler_svc.core.request_table import RequestTable


class IntegrityCheck:
    """A check of everything, one group after the other, while the state may change in between: a group that
    has made steps since is checked again."""

    def __init__(self, requests: RequestTable, groups: Mapping[str, GroupCore]) -> None:
        self._requests = requests
        self._groups = groups
        self._checked: dict[str, tuple[int, list[str]]] = {}  # at which step, what is wrong; the last last
        self._of_requests: list[str] = []

    @property
    def violations(self) -> list[str]:
        """What is wrong, as far as it has been checked."""
        return self._of_requests + [text for _, wrong in self._checked.values() for text in wrong]

    def advance(self) -> bool:
        """Checks all requests, and one group that has to be checked; True where no other has to be.

        Recounts from the occupancies and the requests and changes nothing. Takes time in proportion to all
        blocks of the group and all tokens of its running requests.
        """
        self._of_requests = list(_check_requests(self._requests, self._groups))
        known = {name: found for name, found in self._checked.items() if name in self._groups}
        due = [name for name in self._groups if name not in known]
        due += [name for name, (step, _) in known.items() if step != self._groups[name].ledger.step]
        for name in due[:1]:  # the one whose last check is the longest ago
            group = self._groups[name]
            known.pop(name, None)
            known[name] = group.ledger.step, [f"group {name}: {text}" for text in _check_group(group)]
        self._checked = known
        return len(due) <= 1


def _check_group(group: GroupCore) -> list[str]:
    ledger, limits = group.ledger, group.limits
    released = [occupancy for step in ledger.in_flight for occupancy in step.released]
    occupancies = [*ledger.occupied.values(), *released]
    owners = [0] * ledger.shape.num_blocks
    for occupancy in occupancies:
        for block in occupancy.blocks:
            owners[block] += 1
    held = Counter[int]()
    for step in ledger.in_flight:
        for block in step.left:
            owners[block] += 1
        held.update(step.spilled)
    wrong = ledger.pool.check(owners, held)
    wrong += ledger.tiers.check(occupancies)
    wrong += _check_shared(occupancies, owners)
    wrong += _check_slots(ledger, occupancies)
    wrong += _check_steps(ledger, limits)
    for occupancy in occupancies:
        where = f"occupancy {occupancy.incarnation} of slot {occupancy.slot}"
        wrong += [f"{where}: {text}" for text in _check_counts(ledger, occupancy)]
        wrong += [f"{where}: {text}" for text in _check_keys(ledger, occupancy)]
    wrong += _check_pending(ledger)
    return wrong


def _check_shared(occupancies: list[Occupancy], owners: list[int]) -> Iterator[str]:
    """A block that several tables contain must be full in all of them, so that no row writes it."""
    for occupancy in occupancies:
        for block in occupancy.blocks[occupancy.scheduled // BLOCK_SIZE - occupancy.streamed :]:
            if owners[block] > 1:
                yield f"slot {occupancy.slot} will write block {block}, which {owners[block]} tables contain"


def _check_slots(ledger: Ledger, occupancies: list[Occupancy]) -> Iterator[str]:
    slots = sorted([*ledger.free_slots, *(occupancy.slot for occupancy in occupancies)])
    if slots != list(range(ledger.shape.max_seqs)):
        yield f"slots free, occupied or released: {slots}"
    by_phase = {slot: o for phase in ledger.phases.values() for slot, o in phase.items()}
    if by_phase != ledger.occupied or len(by_phase) != sum(map(len, ledger.phases.values())):
        yield f"slots {sorted(ledger.occupied)} are occupied, {sorted(by_phase)} have a phase"
    for phase, by_slot in ledger.phases.items():
        for slot, occupancy in by_slot.items():
            if occupancy.phase is not phase or occupancy.slot != slot:
                says = f"{occupancy.phase.name}, {occupancy.slot}"
                yield f"slot {slot} is listed as {phase.name}, its occupancy says {says}"
    decoding = ledger.phases[Phase.DECODING]
    due = {slot for slot, occupancy in decoding.items() if occupancy.scheduled >= occupancy.row_limit}
    listed = [o.slot for o in ledger.due if decoding.get(o.slot) is o]
    if sorted(listed) != sorted(due):
        yield f"slots {listed} are listed as due, {sorted(due)} are"
    incarnations = [occupancy.incarnation for occupancy in occupancies]
    if len(set(incarnations)) != len(incarnations):
        yield f"incarnations used twice: {incarnations}"
    receiving = {o.incarnation: o for o in occupancies if o.request.occupancy is o}
    if receiving != ledger.receiving:
        yield f"results of {sorted(ledger.receiving)} count, those of {sorted(receiving)} should"


def _check_steps(ledger: Ledger, limits: Limits) -> Iterator[str]:
    steps = [step.step for step in ledger.in_flight]
    if steps != list(range(ledger.settled_step + 1, ledger.step + 1)) or len(steps) > limits.max_in_flight:
        yield f"steps in flight {steps}, published {ledger.step}"
    for step in ledger.in_flight:
        for occupancy in step.released:
            if occupancy.phase is not Phase.RELEASED or occupancy.last_step != step.step:
                slot, last = occupancy.slot, occupancy.last_step
                yield f"slot {slot} is released with step {step.step}, its last step is {last}"


def _check_counts(ledger: Ledger, occupancy: Occupancy) -> Iterator[str]:
    request, known = occupancy.request, len(occupancy.tokens)
    scheduled, settled = occupancy.scheduled, occupancy.settled
    if occupancy.tokens is not request.tokens:
        yield "does not share its request's tokens"
    limit = min((occupancy.streamed + len(occupancy.blocks)) * BLOCK_SIZE, request.end - 1)
    if not settled <= scheduled <= limit:
        yield f"{settled} settled, {scheduled} scheduled, {len(occupancy.blocks)} blocks, end {request.end}"
    if occupancy.row_limit != limit:
        yield f"row limit {occupancy.row_limit}"
    if len(set(occupancy.blocks)) != len(occupancy.blocks):
        yield f"a block twice in {occupancy.blocks}"
    if settled >= known and request.occupancy is occupancy:
        yield f"{settled} settled of {known} tokens"
    in_order = {
        Phase.PREFILLING: scheduled < known,
        Phase.STREAMED: occupancy.streaming is not None,
        Phase.RELEASED: True,
    }.get(occupancy.phase, scheduled >= known - 1)
    if not in_order and not occupancy.unfetched:
        yield f"{occupancy.phase.name} with {scheduled} scheduled of {known} known"
    streaming = occupancy.streaming
    if streaming is not None and streaming.under_way:
        start, end, layer = streaming.start, streaming.start + streaming.count, streaming.next_layer
        if start != scheduled or not start < end <= limit or layer >= ledger.shape.num_layers:
            yield f"rows {start} to {end - 1} have run {layer} layers; {scheduled} scheduled, limit {limit}"
    if not occupancy.last_step <= ledger.step:
        yield f"last step {occupancy.last_step} is not published"
    behind = scheduled > settled and occupancy.phase is not Phase.FINISHED and not occupancy.unfetched
    if behind and occupancy.last_step <= ledger.settled_step:
        yield f"{scheduled} scheduled, {settled} settled, nothing in flight since {occupancy.last_step}"


def _check_keys(ledger: Ledger, occupancy: Occupancy) -> Iterator[str]:
    if not ledger.prefix_cache:
        return
    request = occupancy.request
    if occupancy.registered != occupancy.settled // BLOCK_SIZE:
        yield f"{occupancy.registered} blocks registered with {occupancy.settled} settled"
    parent = request.root
    for index in range(occupancy.registered):
        parent = block_key(parent, occupancy.tokens[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE])
        if parent != request.key(index):
            yield f"block {index} of the table has a wrong key"
        if index < occupancy.streamed:
            if occupancy.streaming is None or occupancy.streaming.sources[index].key != parent:
                yield f"block {index} is streamed from a frame with another key"
        elif ledger.pool.key_of(block := occupancy.blocks[index - occupancy.streamed]) not in (None, parent):
            yield f"block {block} is cached as something else"


def _check_pending(ledger: Ledger) -> Iterator[str]:
    pending = ledger.pending
    for request in pending.placed:
        if request.group is not pending or request.occupancy is not None or request.ending:
            yield f"{request.name} is placed, and is somewhere else or ending"
    for occupancy in ledger.receiving.values():
        if occupancy.request.group is not pending:
            yield f"{occupancy.request.name} has an occupancy here, and is said to be elsewhere"
    ending = {o.request for o in ledger.receiving.values() if o.request.ending}
    if ending != pending.ending.keys():
        yield f"{len(pending.ending)} requests are to end by the next plan, {len(ending)} should"
    alone = {o.request for o in ledger.receiving.values()} | pending.placed.keys()
    if pending.alone in alone and len(alone) != 1:
        yield f"{len(alone) - 1} requests run with one that is to run alone"


def _check_requests(requests: RequestTable, groups: Mapping[str, GroupCore]) -> Iterator[str]:
    held = list(requests.held)
    pendings = [group.ledger.pending for group in groups.values()]
    for name, request in requests.live.items():
        yield from _check_place(request, requests, held)
        if request.name != name:
            yield f"{name}: is called {request.name}"
        if request.group is not None and request.group not in pendings:
            yield f"{name}: is in a group that has left"
        if not (len(request.submission.prompt) <= len(request.tokens) < request.end or request.ending):
            yield f"{name}: {len(request.tokens)} tokens, end {request.end}"
        if request.ending and request in requests.deadlines:
            yield f"{name} is ending, and its deadline is still to come"
    live = set(requests.live.values())
    if requests.ending.keys() != {r for r in live if r.ending and r.occupancy is None}:
        yield f"{len(requests.ending)} waiting requests are listed as ending"
    for place, found in (
        ("the queue", set(requests.queue)),
        ("held", {*held, *requests.held.by_first}),
        ("deadlines", set(requests.deadlines)),
        ("placed", {request for pending in pendings for request in pending.placed}),
    ):
        if not found <= live:
            yield f"{place} contains requests that are not live"


def _check_place(request: Request, requests: RequestTable, held: list[Request]) -> Iterator[str]:
    placed = request.group is not None and request in request.group.placed
    places = [request in requests.queue, held.count(request), placed, request.occupancy is not None]
    if sum(places) != 1:
        yield f"{request.name}: in the queue, held, placed, in a slot: {places}"
    if (request.group is not None) != (places[2] or places[3]):
        yield f"{request.name}: has a group and no place in it, or the reverse"
