"""A snapshot of the scheduler's state as plain data.

Tests take it by ``SchedulerCore.snapshot``, to compare two cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from albireo.contract.plan import Finish
from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.request import Occupancy, Request
from scheduler_svc.core.request_table import RequestTable


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
    fetching: dict[int, tuple[int, int]]  # tier and frame by block
    streamed: tuple[tuple[int, int], ...]  # tier and frame of the first blocks
    under_way: tuple[int, int, int]  # rows of a streamed slot: the first token, how many, the next layer
    unfetched: bool


@dataclass(frozen=True, slots=True)
class StepSnapshot:
    """A step in flight."""

    step: int
    chunks: tuple[tuple[int, int], ...]  # incarnation, tokens with KV after the chunk
    spans: tuple[int, ...]  # incarnations
    left: tuple[int, ...]  # blocks that are in frames now, and free once this step settles
    spilled: dict[int, int]  # how many tiers the block is copied to
    released: tuple[OccupancySnapshot, ...]  # their slots and blocks are free once this step settles


@dataclass(frozen=True, slots=True)
class TierSnapshot:
    """A KV tier of a group."""

    frames: dict[bytes, int]  # by key
    pins: dict[int, int]  # how many fetches read the frame


@dataclass(frozen=True, slots=True)
class GroupSnapshot:
    """What plans and results have made of the state of one group.

    Two groups with equal snapshots accept the same plans and results. Preferences that later plans may be
    made by, as the order of eviction, are not in it.
    """

    step: int
    settled_step: int
    incarnation: int  # the last one given
    free_slots: tuple[int, ...]
    occupied: tuple[OccupancySnapshot, ...]  # ascending by slot
    in_flight: tuple[StepSnapshot, ...]  # oldest first
    block_owners: tuple[int, ...]  # by block; 0 = free
    cached: dict[bytes, int]  # block by key
    tiers: tuple[TierSnapshot, ...]
    tiers_unknown: bool  # the group has not reported yet what they hold


@dataclass(frozen=True, slots=True)
class CoreSnapshot:
    """The state of all groups, and of the requests; where those that wait are placed is not in it."""

    groups: dict[str, GroupSnapshot]  # by name
    live: dict[str, tuple[int, ...]]  # tokens by name of the request
    deaths: dict[str, int]  # of groups in a row, by name of the request; those above 0
    waiting: frozenset[str]  # for a slot
    held: dict[str, tuple[str, ...]]  # branches, by the one whose prefill they wait for
    # What plans and notices will announce; these two fields alone are not in the logs:
    ending: dict[str, Finish]  # reason by name of the live request
    refused: tuple[str, ...]  # names of submissions that were never live


def take_snapshot(requests: RequestTable, groups: Mapping[str, GroupSnapshot]) -> CoreSnapshot:
    """Copies the state of the requests; takes time in proportion to all of it."""
    live: Mapping[str, Request] = requests.live
    return CoreSnapshot(
        groups=dict(groups),
        live={name: tuple(request.tokens) for name, request in live.items()},
        deaths={name: request.deaths for name, request in live.items() if request.deaths},
        waiting=frozenset(name for name, request in live.items() if requests.waits(request)),
        held={
            first.name: tuple(other.name for other in others)
            for first, others in requests.held.by_first.items()
        },
        ending={name: request.ending for name, request in live.items() if request.ending},
        refused=tuple(requests.refused),
    )


def take_group_snapshot(ledger: Ledger) -> GroupSnapshot:
    """Copies the state of one group; takes time in proportion to all of it."""
    return GroupSnapshot(
        step=ledger.step,
        settled_step=ledger.settled_step,
        incarnation=ledger.incarnation,
        free_slots=tuple(sorted(ledger.free_slots)),
        occupied=tuple(_occupancy(ledger.occupied[slot]) for slot in sorted(ledger.occupied)),
        in_flight=tuple(
            StepSnapshot(
                step.step,
                tuple((occupancy.incarnation, computed) for occupancy, computed in step.chunks),
                tuple(occupancy.incarnation for occupancy in step.spans),
                tuple(step.left),
                dict(step.spilled),
                tuple(map(_occupancy, step.released)),
            )
            for step in ledger.in_flight
        ),
        block_owners=tuple(map(ledger.pool.owners, range(ledger.pool.num_blocks))),
        cached=dict(ledger.pool.cached),
        tiers=tuple(TierSnapshot(dict(tier.by_key), dict(tier.pins)) for tier in ledger.tiers.directories),
        tiers_unknown=ledger.tiers.unknown,
    )


def _occupancy(occupancy: Occupancy) -> OccupancySnapshot:
    fetching, streaming = occupancy.fetching, occupancy.streaming
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
        fetching={block: source[:2] for block, source in fetching.sources.items()} if fetching else {},
        streamed=tuple(source[:2] for source in streaming.sources) if streaming else (),
        under_way=(streaming.start, streaming.count, streaming.next_layer) if streaming else (0, 0, 0),
        unfetched=occupancy.unfetched,
    )
