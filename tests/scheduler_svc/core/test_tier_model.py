"""The worker model with tiers: it copies what it is asked to, and notices every mistake of a plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from albireo.contract.plan import Admission, Chunk, Grant, GroupShape, Plan, SamplingParams
from albireo.contract.tiers import Contents, Fetch, Frames, Spill, TierShape

from .samples import prompt
from .worker_model import Worker

SHAPE = GroupShape(9, 3, 96, (TierShape("host", 3, 1e-5, 1e-5), TierShape("disk", 4, 1e-4, 1e-4)))
KEYS = (b"0" * 16, b"1" * 16, b"2" * 16)
TEXT = prompt(33)
"""Two full blocks and a token."""


def admission(slot: int, incarnation: int, *, cached: int, tokens: tuple[int, ...] = TEXT) -> Admission:
    sampling = SamplingParams(max_tokens=9, seed=0, ignore_eos=True)
    return Admission(slot, incarnation, f"r{incarnation}", tokens, 0, cached, sampling)


FIRST = Plan(
    1, 1, admissions=(admission(0, 1, cached=0),), grants=(Grant(0, (0, 1, 2)),), chunks=(Chunk(0, 0, 33),)
)
SPILLED = Plan(1, 2, released=(0,), spills=(Spill(0, (0, 1), (0, 1), KEYS[:2]),))
FETCHED = Plan(
    1,
    3,
    admissions=(admission(0, 2, cached=32),),
    fetches=(Fetch(0, 0, (3, 4), (0, 1), KEYS[:2]),),
    grants=(Grant(0, (3, 4, 5)),),
    chunks=(Chunk(0, 32, 1),),
)


def run(*plans: Plan, ahead: bool) -> Worker:
    """Runs plans, each of which is read when its step begins or, with ``ahead``, before the step before."""
    worker = Worker(SHAPE)
    for plan, following in zip(plans, (*plans[1:], None), strict=True):
        worker.read(plan)
        if following and ahead:
            worker.read(following)
        worker.run(plan)
    return worker


@pytest.fixture(params=[False, True], ids=["read late", "read early"])
def ahead(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_what_is_spilled_and_fetched_is_what_was_there(ahead: bool) -> None:
    worker = run(FIRST, SPILLED, ahead=ahead)
    result = worker.run(FETCHED)
    assert (result.incarnations, result.unfetched) == ((2,), ())
    assert [(read.tier, read.blocks) for read in result.read] == [(0, 2)]
    assert worker.store[3:5] == worker.store[0:2]


def test_a_fetch_may_be_read_by_a_later_step_or_never(ahead: bool) -> None:
    run(FIRST, SPILLED, replace(FETCHED, chunks=()), Plan(1, 4, chunks=(Chunk(0, 32, 1),)), ahead=ahead)
    again = replace(FETCHED, step=4, released=(0,), admissions=(admission(0, 3, cached=32),))
    run(FIRST, SPILLED, replace(FETCHED, chunks=()), again, ahead=ahead)


def test_the_rows_of_a_failed_fetch_do_not_count() -> None:
    worker = run(FIRST, SPILLED, ahead=False)
    worker.tiers.lose([(0, 1)])
    result = worker.run(FETCHED)
    assert (result.incarnations, result.unfetched) == ((), (2,))
    later = [worker.run(Plan(1, step, num_decodes=1)) for step in (4, 5)]
    assert [result.incarnations for result in later] == [(), ()]
    assert [result.lost for result in (result, *later)] == [(), (Frames(0, (1,)),), ()]


def test_a_spill_that_fails_is_reported_and_its_fetch_fails() -> None:
    worker = run(FIRST, ahead=False)
    worker.tiers.faults.spills = 1
    assert worker.run(SPILLED).lost == (Frames(0, (0,)),)
    assert worker.run(FETCHED).unfetched == (2,)


def test_contents_of_an_earlier_life_are_reported_in_portions() -> None:
    frames = run(FIRST, SPILLED, ahead=False).tiers.frames
    worker = Worker(SHAPE, frames)
    worker.tiers.portion = 1
    results = [worker.run(Plan(1, step)) for step in (1, 2, 3, 4)]
    assert [result.contents for result in results] == [
        (Contents(0, (0,), KEYS[:1]),),
        (Contents(0, (1,), KEYS[1:2]),),
        (),
        (),
    ]
    assert [result.contents_end for result in results] == [False, False, True, False]
    assert worker.run(replace(FETCHED, step=5)).incarnations == (2,)


def fetch(**changes: object) -> Plan:
    return replace(FETCHED, fetches=(FETCHED.fetches[0]._replace(**changes),))  # type: ignore[arg-type]


def spill(**changes: object) -> Plan:
    return replace(SPILLED, spills=(SPILLED.spills[0]._replace(**changes),))  # type: ignore[arg-type]


OTHER = Plan(
    1, 3, admissions=(admission(1, 2, cached=0),), grants=(Grant(1, (6, 7, 8)),), chunks=(Chunk(1, 0, 33),)
)
"""The same text in other blocks."""
GOES_ON = replace(SPILLED, released=(), num_decodes=1)
"""The first request goes on."""
INTO_ITS_BLOCK = Plan(
    1,
    3,
    admissions=(admission(1, 2, cached=32),),
    fetches=(Fetch(1, 0, (0, 4), (0, 1), KEYS[:2]),),
    grants=(Grant(1, (0, 4, 5)),),
    chunks=(Chunk(1, 32, 1),),
    num_decodes=1,
)
SHARED = Plan(
    1,
    4,
    admissions=(admission(1, 3, cached=32),),
    grants=(Grant(1, (3, 4, 8)),),
    chunks=(Chunk(1, 32, 1),),
)
WAITS = replace(FETCHED, chunks=())

MISTAKES: dict[str, tuple[Plan, ...]] = {
    "frames in another order": (SPILLED, fetch(frames=(1, 0))),
    "frames and keys in another order": (SPILLED, fetch(frames=(1, 0), keys=(KEYS[1], KEYS[0]))),
    "a frame that was never written": (SPILLED, fetch(frames=(0, 2))),
    "a frame of another tier": (SPILLED, fetch(tier=1)),
    "a frame that does not exist": (SPILLED, fetch(frames=(0, 3))),
    "one frame twice": (SPILLED, fetch(frames=(0, 0), keys=(KEYS[0], KEYS[0]))),
    "a block that is not a cached one": (SPILLED, fetch(blocks=(3, 5))),
    "a spill of a block that is not full": (spill(blocks=(0, 2)),),
    "two blocks into one frame": (spill(frames=(0, 0)),),
    "a key that stands for another content": (
        SPILLED,
        Plan(1, 3, spills=(Spill(1, (0,), (0,), KEYS[1:2]),)),
    ),
    "a fetch into a block that a running row reads": (GOES_ON, INTO_ITS_BLOCK),
    "a frame that is overwritten while a fetch waits": (
        SPILLED,
        WAITS,
        Plan(1, 4, spills=(Spill(0, (0,), (1,), KEYS[:1]),)),
    ),
    "a block that is shared while it is fetched": (SPILLED, WAITS, SHARED),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_noticed(what: str, ahead: bool) -> None:
    with pytest.raises(AssertionError):
        run(FIRST, *MISTAKES[what], ahead=ahead)


def test_a_block_that_is_filled_while_it_is_spilled_is_noticed() -> None:
    """The next plan is read before the copy has ended; were it read later, nothing would be wrong."""
    early = fetch(blocks=(0, 4))
    early = replace(early, grants=(Grant(0, (0, 4, 5)),))
    run(FIRST, SPILLED, early, ahead=False)
    with pytest.raises(AssertionError, match="not full"):
        run(FIRST, SPILLED, early, ahead=True)


def test_a_block_that_changes_hands_with_the_plan_is_copied_before() -> None:
    here = replace(FETCHED, step=2, released=(0,), spills=SPILLED.spills)
    here = replace(here, fetches=(Fetch(0, 0, (1, 0), (0, 1), KEYS[:2]),), grants=(Grant(0, (1, 0, 5)),))
    run(FIRST, here, ahead=False)
    new = replace(OTHER, step=2, released=(0,), spills=SPILLED.spills, grants=(Grant(1, (0, 1, 2)),))
    new = replace(new, admissions=(admission(1, 2, cached=0, tokens=prompt(33, 1)),))
    after = replace(FETCHED, admissions=(admission(0, 3, cached=32),), num_decodes=1)
    assert run(FIRST, new, ahead=True).run(after).incarnations == (2, 3)
