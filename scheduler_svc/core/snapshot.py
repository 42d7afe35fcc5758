"""A snapshot of the scheduler's state as plain data.

Tests take it by ``SchedulerCore.snapshot``, to compare two cores.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.contract.plan import Finish
from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.request import Occupancy


@dataclass(frozen=True, slots=True)
class OccupancySnapshot:
    """One occupancy of a slot."""

    slot: int
    incarnation: int
    request: str
    receiving: bool  # whether its results count
    phase: str
    scheduled: int
    settled: int
    last_step: int
    blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StepSnapshot:
    """A step in flight."""

    step: int
    chunks: tuple[tuple[int, int], ...]  # incarnation, tokens with KV after the chunk
    released: tuple[OccupancySnapshot, ...]  # their slots and blocks are free once this step settles


@dataclass(frozen=True, slots=True)
class CoreSnapshot:
    """What plans, results and submissions have made of the state.

    Two cores with equal snapshots accept the same plans and results. Preferences that later plans may be made
    by, as the order of eviction, are not in it.
    """

    step: int
    settled_step: int
    incarnation: int  # the last one given
    free_slots: tuple[int, ...]
    occupied: tuple[OccupancySnapshot, ...]  # ascending by slot
    in_flight: tuple[StepSnapshot, ...]  # oldest first
    block_owners: tuple[int, ...]  # by block; 0 = free
    cached: dict[bytes, int]  # block by key
    live: dict[str, tuple[int, ...]]  # tokens by name of the request
    waiting: tuple[str, ...]  # for a slot, in queue order
    held: dict[str, tuple[str, ...]]  # branches, by the one whose prefill they wait for
    # What the next plan will announce; these two fields alone are not in the logs:
    ending: dict[str, Finish]  # reason by name of the live request
    refused: tuple[str, ...]  # names of submissions that were never live


def take_snapshot(ledger: Ledger) -> CoreSnapshot:
    """Copies the state; takes time in proportion to all of it."""
    requests = ledger.requests
    return CoreSnapshot(
        step=ledger.step,
        settled_step=ledger.settled_step,
        incarnation=ledger.incarnation,
        free_slots=tuple(sorted(ledger.free_slots)),
        occupied=tuple(_occupancy(ledger.occupied[slot]) for slot in sorted(ledger.occupied)),
        in_flight=tuple(
            StepSnapshot(
                step.step,
                tuple((occupancy.incarnation, computed) for occupancy, computed in step.chunks),
                tuple(map(_occupancy, step.released)),
            )
            for step in ledger.in_flight
        ),
        block_owners=tuple(map(ledger.pool.owners, range(ledger.pool.num_blocks))),
        cached=ledger.pool.cached,
        live={name: tuple(request.tokens) for name, request in requests.live.items()},
        waiting=tuple(r.name for r in sorted(requests.waiting, key=lambda request: request.order)),
        held={
            first.name: tuple(other.name for other in others)
            for first, others in requests.held.by_first.items()
        },
        ending=dict(requests.ending),
        refused=tuple(requests.refused),
    )


def _occupancy(occupancy: Occupancy) -> OccupancySnapshot:
    return OccupancySnapshot(
        slot=occupancy.slot,
        incarnation=occupancy.incarnation,
        request=occupancy.request.name,
        receiving=occupancy.request.occupancy is occupancy,
        phase=occupancy.phase.name,
        scheduled=occupancy.scheduled,
        settled=occupancy.settled,
        last_step=occupancy.last_step,
        blocks=tuple(occupancy.blocks),
    )
