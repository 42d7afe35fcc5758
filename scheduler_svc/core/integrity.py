"""The audit of the core's books."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from albireo.contract.plan import BLOCK_SIZE
from scheduler_svc.core.blocks import block_key
from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.limits import Limits
from scheduler_svc.core.queue import KeyedQueue
from scheduler_svc.core.request import Phase, Request, Stay


def check_integrity(
    ledger: Ledger,
    live: Mapping[str, Request],
    ending: Mapping[str, Request],
    deadlines: KeyedQueue[Request],
    limits: Limits,
) -> list[str]:
    """Everything that is wrong, recounted from the stays and the requests; changes nothing.

    Takes time in proportion to all blocks and all tokens of running requests.
    """
    leaving = [stay for flight in ledger.flights for stay in flight.leaving]
    stays = [*ledger.stays(), *leaving]
    owners = [0] * ledger.shape.num_blocks
    for stay in stays:
        for block in stay.blocks:
            owners[block] += 1
    wrong = ledger.pool.check(owners)
    wrong += _check_shared(stays, owners)
    wrong += _check_slots(ledger, stays)
    wrong += _check_flights(ledger, limits)
    for stay in stays:
        wrong += [
            f"stay {stay.incarnation} in slot {stay.slot}: {text}" for text in _check_stay(ledger, stay)
        ]
    wrong += _check_requests(ledger, live, ending, deadlines)
    return wrong


def _check_shared(stays: list[Stay], owners: list[int]) -> Iterator[str]:
    """What several tables hold must be full in all of them, so that nobody writes it."""
    for stay in stays:
        for block in stay.blocks[stay.scheduled // BLOCK_SIZE :]:
            if owners[block] > 1:
                yield f"slot {stay.slot} will write block {block}, which {owners[block]} tables hold"


def _check_slots(ledger: Ledger, stays: list[Stay]) -> Iterator[str]:
    slots = sorted([*ledger.free_slots, *(stay.slot for stay in stays)])
    if slots != list(range(ledger.shape.max_seqs)):
        yield f"slots free, held or fenced: {slots}"
    for phase, by_slot in ledger.phases.items():
        for slot, stay in by_slot.items():
            if stay.phase is not phase or stay.slot != slot:
                yield f"slot {slot} is filed as {phase.name}, its stay says {stay.phase.name}, {stay.slot}"
    incarnations = [stay.incarnation for stay in stays]
    if len(set(incarnations)) != len(incarnations):
        yield f"incarnations used twice: {incarnations}"
    heard = {stay.incarnation: stay for stay in stays if stay.request.stay is stay}
    if heard != ledger.listening:
        yield f"results of {sorted(ledger.listening)} count, those of {sorted(heard)} should"


def _check_flights(ledger: Ledger, limits: Limits) -> Iterator[str]:
    steps = [flight.step for flight in ledger.flights]
    if steps != list(range(ledger.settled_step + 1, ledger.step + 1)) or len(steps) > limits.max_in_flight:
        yield f"steps in flight {steps}, published {ledger.step}"
    for flight in ledger.flights:
        for stay in flight.leaving:
            if stay.phase is not Phase.LEFT or stay.last_step != flight.step:
                yield f"slot {stay.slot} waits for step {flight.step}, its last one is {stay.last_step}"


def _check_stay(ledger: Ledger, stay: Stay) -> Iterator[str]:
    request, known = stay.request, len(stay.tokens)
    if stay.tokens is not request.tokens:
        yield "does not share its request's tokens"
    if not stay.settled <= stay.scheduled <= min(len(stay.blocks) * BLOCK_SIZE, request.end - 1):
        counts = f"{stay.settled} settled, {stay.scheduled} scheduled, {len(stay.blocks)} blocks"
        yield f"{counts}, end {request.end}"
    if stay.row_limit != min(len(stay.blocks) * BLOCK_SIZE, request.end - 1):
        yield f"row limit {stay.row_limit}"
    if len(set(stay.blocks)) != len(stay.blocks):
        yield f"a block twice in {stay.blocks}"
    if stay.settled >= known and request.stay is stay:
        yield f"{stay.settled} settled of {known} tokens"
    in_order = {
        Phase.PREFILLING: stay.scheduled < known,
        Phase.LEFT: True,
    }.get(stay.phase, stay.scheduled >= known - 1)
    if not in_order:
        yield f"{stay.phase.name} with {stay.scheduled} scheduled of {known} known"
    if not stay.last_step <= ledger.step:
        yield f"last step {stay.last_step} is not published"
    behind = stay.scheduled > stay.settled and stay.phase is not Phase.FINISHED
    if behind and stay.last_step <= ledger.settled_step:
        yield f"{stay.scheduled} scheduled, {stay.settled} settled, nothing in flight since {stay.last_step}"
    if ledger.prefix_cache:
        if stay.registered != stay.settled // BLOCK_SIZE:
            yield f"{stay.registered} blocks registered with {stay.settled} settled"
        parent = request.root
        for index in range(stay.registered):
            parent = block_key(parent, stay.tokens[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE])
            if parent != request.key(index):
                yield f"block {index} of the table has a wrong key"
            if ledger.pool.key_of(stay.blocks[index]) not in (None, parent):
                yield f"block {stay.blocks[index]} is cached as something else"


def _check_requests(
    ledger: Ledger,
    live: Mapping[str, Request],
    ending: Mapping[str, Request],
    deadlines: KeyedQueue[Request],
) -> Iterator[str]:
    held = list(ledger.held)
    for request_id, request in live.items():
        idle = held.count(request) + (request in ledger.waiting)  # once at most, and nowhere else
        places = [idle, request.stay is not None, request_id in ending]
        if request.submission.request_id != request_id or not any(places) or idle > 1 - any(places[1:]):
            yield f"{request_id}: waiting or held, staying, ending: {places}"
        if places[2] != bool(request.reason) or ending.get(request_id, request) is not request:
            yield f"{request_id}: reason {request.reason.name}, ending: {places[2]}"
        if not len(request.submission.prompt) <= len(request.tokens) < request.end:
            yield f"{request_id}: {len(request.tokens)} tokens, end {request.end}"
    known = set(live.values())
    for name, group in (
        ("waiting", set(ledger.waiting)),
        ("held", {*held, *ledger.held.firsts}),
        ("ending", set(ending.values())),
        ("deadlines", set(deadlines)),
        ("listening", {stay.request for stay in ledger.listening.values()}),
    ):
        if not group <= known:
            yield f"{name} holds requests that are over"
