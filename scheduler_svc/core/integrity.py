"""The audit of the scheduler's state: recounts it and lists what is wrong.

The core calls it, for the published load of the scheduler and for tests.
"""

from __future__ import annotations

from collections.abc import Iterator

from albireo.contract.plan import BLOCK_SIZE, Finish
from scheduler_svc.core.blocks import block_key
from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.limits import Limits
from scheduler_svc.core.request import Occupancy, Phase


def check_integrity(ledger: Ledger, limits: Limits) -> list[str]:
    """Everything that is wrong, recounted from the occupancies and the requests; changes nothing.

    Takes time in proportion to all blocks and all tokens of running requests.
    """
    released = [occupancy for step in ledger.in_flight for occupancy in step.released]
    occupancies = [*ledger.occupied.values(), *released]
    owners = [0] * ledger.shape.num_blocks
    for occupancy in occupancies:
        for block in occupancy.blocks:
            owners[block] += 1
    wrong = ledger.pool.check(owners)
    wrong += _check_shared(occupancies, owners)
    wrong += _check_slots(ledger, occupancies)
    wrong += _check_steps(ledger, limits)
    for occupancy in occupancies:
        where = f"occupancy {occupancy.incarnation} of slot {occupancy.slot}"
        wrong += [f"{where}: {text}" for text in _check_counts(ledger, occupancy)]
        wrong += [f"{where}: {text}" for text in _check_keys(ledger, occupancy)]
    wrong += _check_requests(ledger)
    return wrong


def _check_shared(occupancies: list[Occupancy], owners: list[int]) -> Iterator[str]:
    """A block that several tables contain must be full in all of them, so that no row writes it."""
    for occupancy in occupancies:
        for block in occupancy.blocks[occupancy.scheduled // BLOCK_SIZE :]:
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
    limit = min(len(occupancy.blocks) * BLOCK_SIZE, request.end - 1)
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
        Phase.RELEASED: True,
    }.get(occupancy.phase, scheduled >= known - 1)
    if not in_order:
        yield f"{occupancy.phase.name} with {scheduled} scheduled of {known} known"
    if not occupancy.last_step <= ledger.step:
        yield f"last step {occupancy.last_step} is not published"
    behind = scheduled > settled and occupancy.phase is not Phase.FINISHED
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
        if ledger.pool.key_of(occupancy.blocks[index]) not in (None, parent):
            yield f"block {occupancy.blocks[index]} is cached as something else"


def _check_requests(ledger: Ledger) -> Iterator[str]:
    requests = ledger.requests
    held = list(requests.held)
    for name, request in requests.live.items():
        places = [request in requests.waiting, held.count(request), request.occupancy is not None]
        if request.name != name or sum(places) != 1:
            yield f"{name}: waiting, held, in a slot: {places}"
        if not len(request.submission.prompt) <= len(request.tokens) < request.end:
            yield f"{name}: {len(request.tokens)} tokens, end {request.end}"
        if name in requests.ending and request in requests.deadlines:
            yield f"{name} is ending, and its deadline is still to come"
    for name, reason in requests.ending.items():
        if name not in requests.live or reason is Finish.ERROR:
            yield f"{name} is ending with {reason.name}; live: {name in requests.live}"
    live = set(requests.live.values())
    for place, group in (
        ("waiting", set(requests.waiting)),
        ("held", {*held, *requests.held.by_first}),
        ("deadlines", set(requests.deadlines)),
        ("receiving", {occupancy.request for occupancy in ledger.receiving.values()}),
    ):
        if not group <= live:
            yield f"{place} contains requests that are not live"
