"""Which rank samples what: every rank knows it beforehand, and all agree."""

from __future__ import annotations

import numpy as np
import pytest

from worker_svc.sampling.layout import PARALLEL_ROWS, SamplingMode, SamplingPolicy


@pytest.mark.parametrize("mode", ["auto", "parallel"])
def test_rows_go_to_the_owners_of_their_slots(mode: SamplingMode) -> None:
    slots = np.repeat(np.arange(4), PARALLEL_ROWS) + 4 * np.tile(np.arange(PARALLEL_ROWS), 4)
    layouts = [SamplingPolicy(mode, rank, 4).layout(slots) for rank in range(4)]
    assert {(layout.parallel, layout.counts) for layout in layouts} == {(True, (PARALLEL_ROWS,) * 4)}
    for rank, layout in enumerate(layouts):
        assert set(slots[layout.first : layout.last] % 4) == {rank}


def test_a_rank_without_rows_has_an_empty_share() -> None:
    layout = SamplingPolicy("parallel", 1, 4).layout(np.array([0, 4, 2, 3]))
    assert (layout.counts, layout.first, layout.last) == ((2, 0, 1, 1), 2, 2)


@pytest.mark.parametrize(("mode", "rows"), [("auto", PARALLEL_ROWS - 1), ("driver", 1000)])
def test_rank_0_samples_few_rows_alone(mode: SamplingMode, rows: int) -> None:
    layouts = [SamplingPolicy(mode, rank, 2).layout(np.arange(rows)) for rank in range(2)]
    assert [(layout.parallel, layout.first, layout.last) for layout in layouts] == [
        (False, 0, rows),
        (False, 0, 0),
    ]
    assert layouts[0].counts == layouts[1].counts == (rows, 0)


@pytest.mark.parametrize("mode", ["auto", "parallel", "driver"])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_no_step_has_a_rank_sample_more_rows_than_its_most(mode: SamplingMode, size: int) -> None:
    draw = np.random.default_rng(0)
    for slots in (1, 2, 14, 15, 16, 17, 40, 100):
        policies = [SamplingPolicy(mode, rank, size) for rank in range(size)]
        by_owner = np.argsort(np.arange(slots) % size, kind="stable")  # all of rank 0 come first
        counts = [
            policies[0].layout(chosen).counts
            for rows in range(1, slots + 1)
            for chosen in (by_owner[:rows], by_owner[np.sort(draw.permutation(slots)[:rows])])
        ]
        assert (np.max(counts, axis=0) <= [policy.most_rows(slots) for policy in policies]).all()


def test_one_rank_has_nothing_to_share() -> None:
    assert not SamplingPolicy("parallel").layout(np.arange(1000)).parallel


@pytest.mark.parametrize(
    ("mode", "rank", "rows", "places"),
    [
        ("auto", 0, 10, [0, 1, 2, 3, 4, 5]),  # the driver may sample any slot
        ("auto", 1, 5, [-1, 0, -1, 1, -1, 2]),
        ("parallel", 0, 5, [0, -1, 1, -1, 2, -1]),
        ("driver", 0, 10, [0, 1, 2, 3, 4, 5]),
        ("driver", 1, 0, [-1] * 6),
    ],
)
def test_penalty_state_lies_where_rows_are_sampled(
    mode: SamplingMode, rank: int, rows: int, places: list[int]
) -> None:
    policy = SamplingPolicy(mode, rank, 2)
    assert policy.state_row(np.arange(6)).tolist() == places
    assert policy.state_rows(10) == rows
