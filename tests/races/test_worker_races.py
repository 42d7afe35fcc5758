"""A real rank, its three stages and all, under plans that were written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from albireo.contract import result_rows
from albireo.contract.plan import Admission, Chunk, Ended, Finish, Grant, SamplingParams
from albireo.local.redis_server import LocalRedis
from albireo.v1 import log_pb2 as log
from tests.races.fake_scheduler import FakeScheduler, Rank, admit, rows_of, scripted_rank, tokens


@dataclass
class Ranks:
    """The schedulers of the ranks that this module's tests share."""

    overlapped: FakeScheduler
    synchronous: FakeScheduler
    doomed: dict[str, tuple[FakeScheduler, Rank]]  # each for one test, which it does not survive


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """All start at once. Their Redis is their own: other tests empty the common one."""
    directory = tmp_path_factory.mktemp("ranks")
    with ExitStack() as closing:
        server = LocalRedis(directory / "redis")
        closing.callback(server.stop)

        def start(name: str, **options: Any) -> tuple[FakeScheduler, Rank]:
            return closing.enter_context(scripted_rank(server.url, directory, name, **options))

        overlapped, synchronous = start("overlapped"), start("synchronous", synchronous=True)
        doomed = {name: start(name) for name in DISAGREEMENTS}
        for scheduler, rank in (overlapped, synchronous, *doomed.values()):
            scheduler.wait_group(rank)
        yield Ranks(overlapped[0], synchronous[0], doomed)


@pytest.fixture
def scheduler(ranks: Ranks) -> FakeScheduler:
    """In a new epoch of the shared rank."""
    ranks.overlapped.open_epoch()
    return ranks.overlapped


def plain(count: int, seed: int, first: int = 0) -> list[tuple[int, int]]:
    return [(token, int(Finish.NONE)) for token in tokens(seed, first, count)]


def test_tokens_are_a_hash_of_seed_and_position(scheduler: FakeScheduler) -> None:
    scheduler.publish(**admit(0, 1, 5, (0,)))
    scheduler.publish(**admit(3, 2, 20, (1, 2), outputs=7), num_decodes=1)
    scheduler.decode(4, rows=2)
    results = scheduler.results()
    assert rows_of(results, 1) == plain(6, seed=1)
    assert rows_of(results, 2) == plain(5, seed=2, first=7)
    assert [result.decodes for _, result in results] == [0, 1, 2, 2, 2, 2]
    assert [result.prefill_tokens for _, result in results] == [5, 20, 0, 0, 0, 0]
    assert [a.num_outputs for _, result in results for a in result.admitted] == [0, 7]


def test_rows_after_an_end_are_left_out_and_counted(scheduler: FakeScheduler) -> None:
    stop = tokens(1, 0, 4)[3]
    scheduler.publish(**admit(0, 1, 5, (0,), stop_ids=(stop,)))
    scheduler.publish(**admit(1, 2, 5, (1,)), num_decodes=1)
    scheduler.decode(5, rows=2)
    results = scheduler.results()
    assert rows_of(results, 1) == [*plain(3, seed=1), (stop, Finish.STOP)]
    assert rows_of(results, 2) == plain(6, seed=2)
    assert [result.wasted_rows for _, result in results] == [0, 0, 0, 0, 1, 1, 1]


def test_a_slot_is_used_again_in_the_plan_that_releases_it(scheduler: FakeScheduler) -> None:
    """Published before any result: the rows of the old occupancy and the new one are in flight together."""
    stop = tokens(1, 0, 3)[2]
    scheduler.publish(**admit(0, 1, 5, (0,), stop_ids=(stop,)))
    scheduler.decode(4, rows=1)
    scheduler.publish(released=(0,), **admit(0, 2, 30, (2, 3)))
    scheduler.decode(3, rows=1)
    results = scheduler.results()
    assert rows_of(results, 1) == [*plain(2, seed=1), (stop, Finish.STOP)]
    assert rows_of(results, 2) == plain(4, seed=2)


def test_plans_far_ahead_run_in_order_and_once(scheduler: FakeScheduler) -> None:
    scheduler.publish(**admit(0, 1, 5, (0, 1, 2)))
    scheduler.decode(40, rows=1)  # many more than the queues between the stages hold
    results = scheduler.results()
    assert [entry_id.step for entry_id, _ in results] == list(range(1, 42))
    assert rows_of(results, 1) == plain(41, seed=1)


def test_a_prompt_in_chunks_samples_once_and_a_pause_skips_rows(scheduler: FakeScheduler) -> None:
    scheduler.publish(**admit(0, 1, 5, (0,)))
    request = Admission(1, 2, "r2", tuple(range(40)), 0, 0, SamplingParams(100, seed=2, ignore_eos=True))
    scheduler.publish(
        admissions=(request,), grants=(Grant(1, (1, 2, 3)),), chunks=(Chunk(1, 0, 16),), num_decodes=1
    )
    scheduler.publish(chunks=(Chunk(1, 16, 16),), paused=(0,))
    scheduler.publish(chunks=(Chunk(1, 32, 8),))
    scheduler.publish(resumed=(0,), num_decodes=2)
    results = scheduler.results()
    assert rows_of(results, 1) == plain(3, seed=1)
    assert [list(result_rows.rows_of(result).incarnations) for _, result in results] == [
        [1],
        [1],
        [],
        [2],
        [1, 2],
    ]
    assert rows_of(results, 2) == plain(2, seed=2)


def test_an_end_by_the_scheduler_is_repeated_after_the_rows_before_it(scheduler: FakeScheduler) -> None:
    scheduler.publish(**admit(0, 1, 5, (0,), max_tokens=2))
    scheduler.decode(1, rows=1)
    scheduler.publish(released=(0,), ended=(Ended("r1", Finish.CANCELLED),))
    results = scheduler.results()
    assert rows_of(results, 1)[-1][1] == Finish.LENGTH
    ended = [(entry_id.step, e.request_id, int(e.reason)) for entry_id, r in results for e in r.ended]
    assert ended == [(3, "r1", int(Finish.CANCELLED))]


def test_a_new_epoch_begins_while_steps_of_the_old_one_are_staged(scheduler: FakeScheduler) -> None:
    old = scheduler.epoch
    scheduler.publish(**admit(0, 1, 5, tuple(range(10))))
    scheduler.decode(150, rows=1)
    new = scheduler.open_epoch()
    scheduler.publish(**admit(0, 1, 9, (9,), seed=77))  # the same slot, incarnation and block
    scheduler.decode(3, rows=1)
    results = scheduler.results()
    assert rows_of(results, 1) == plain(4, seed=77)
    order = scheduler.order()
    assert [entry_id for entry_id in order if entry_id.epoch == new] == [(new, step) for step in range(5)]
    assert (old, 151) not in order  # the new epoch came in between, or this shows nothing


def test_the_moments_of_a_step_stand_in_order(scheduler: FakeScheduler) -> None:
    scheduler.publish(**admit(0, 1, 5, (0,)))
    scheduler.decode(6, rows=1)
    timings = [result.timing for _, result in scheduler.results()]
    for t in timings:
        moments = [t.fetched, t.staged, t.forward_begin, t.sampling_begin, t.sampling_end, t.output_begin]
        assert moments == sorted(moments)
        assert t.sampling_begin - t.forward_begin >= 1_000_000  # the cost model's millisecond
    for before, after in pairwise(timings):
        assert before.sampling_end <= after.forward_begin
        assert before.output_begin <= after.previous_appended <= after.output_begin


def everything(scheduler: FakeScheduler) -> list[log.StepResult]:
    """Results of a script in which all that a plan can say occurs; moments left out."""
    scheduler.open_epoch()
    scheduler.publish(**admit(0, 1, 5, (0,)))
    scheduler.publish(**admit(1, 2, 20, (1, 2), stop_ids=tuple(range(0, 384, 3))), num_decodes=1)
    scheduler.publish(**admit(2, 3, 20, (3, 4), max_tokens=3, min_tokens=3, ignore_eos=False), num_decodes=2)
    scheduler.decode(4, rows=3)
    scheduler.publish(released=(1,), paused=(0,), **admit(1, 4, 16, (2,), outputs=2), num_decodes=1)
    scheduler.publish(released=(2,), grants=(Grant(1, (1,)),), num_decodes=1)
    scheduler.publish(resumed=(0,), ended=(Ended("r9", Finish.DEADLINE),), num_decodes=2)
    scheduler.decode(3, rows=2)
    results = [result for _, result in scheduler.results()]
    for result in results:
        result.ClearField("timing")
    return results


def test_synchronous_mode_brings_the_same_results(ranks: Ranks) -> None:
    overlapped = everything(ranks.overlapped)
    assert overlapped == everything(ranks.synchronous)
    assert sum(result.wasted_rows for result in overlapped) > 0
    assert {finish for result in overlapped for finish in result.finishes} == {0, Finish.STOP, Finish.LENGTH}


def gap(scheduler: FakeScheduler) -> None:
    scheduler.publish(skip=1, num_decodes=1)


def decodes(scheduler: FakeScheduler) -> None:
    scheduler.publish(num_decodes=2)


def digest(scheduler: FakeScheduler) -> None:
    scheduler.publish(num_decodes=1, digest=1234)


def taken(scheduler: FakeScheduler) -> None:
    scheduler.publish(**admit(0, 2, 5, (3,)), num_decodes=1)


def closed(scheduler: FakeScheduler) -> None:
    scheduler.close_group("the scheduler says so")


DISAGREEMENTS = {
    "gap": (gap, "plan 1-3 came where"),
    "decodes": (decodes, "1 rows decode, the plan says 2"),
    "digest": (digest, "digest of the table differs"),
    "taken": (taken, "slot 0 is admitted twice"),
    "closed": (closed, "the scheduler says so"),
}


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_a_rank_that_disagrees_with_the_log_stops(ranks: Ranks, name: str) -> None:
    scheduler, rank = ranks.doomed[name]
    scheduler.open_epoch()
    scheduler.publish(**admit(0, 1, 5, (0,)))
    assert rows_of(scheduler.results(), 1) == plain(1, seed=1)
    disagree, said = DISAGREEMENTS[name]
    disagree(scheduler)
    assert said in rank.wait_end()
