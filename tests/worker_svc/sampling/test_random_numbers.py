"""Random numbers by (seed, position): uniform, unrelated to adjacent ones, and the same for ever."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from worker_svc.sampling.random_numbers import uniforms


def draw(seeds: npt.ArrayLike, positions: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return uniforms(*np.broadcast_arrays(np.asarray(seeds, np.uint64), np.asarray(positions, np.int64)))


def grid(seeds: int, positions: int) -> npt.NDArray[np.float64]:
    return draw(np.arange(seeds)[:, None], np.arange(positions)[None])


def chi_square(samples: npt.NDArray[np.float64], bins: int = 100) -> float:
    counts = np.bincount((samples * bins).astype(int), minlength=bins)
    expected = len(samples) / bins
    return float(((counts - expected) ** 2 / expected).sum())


# 99 degrees of freedom: one in 10 000 of fair samples is above 161; far below would be too even.
@pytest.mark.parametrize("axis", ["one seed", "one position"])
def test_uniform(axis: str) -> None:
    samples = draw(5, np.arange(100_000)) if axis == "one seed" else draw(np.arange(100_000), 5)
    assert samples.min() >= 0
    assert samples.max() < 1
    assert 50 < chi_square(samples) < 161


def test_a_function_of_seed_and_position_alone() -> None:
    table = grid(8, 16)
    seeds, positions = [3, 0, 7, 3], [15, 2, 2, 0]
    assert np.array_equal(draw(seeds, positions), table[seeds, positions])


def test_extreme_seeds_differ() -> None:
    seeds = np.array([0, 1, 2**63 - 1, 2**63, 2**64 - 1], dtype=np.uint64)
    assert len(np.unique(draw(seeds, 0))) == 5


@pytest.mark.parametrize("shift", [(1, 0), (0, 1), (1, 1), (1, -1), (2, -1)])
def test_adjacent_numbers_are_unrelated(shift: tuple[int, int]) -> None:
    table = grid(300, 300)
    seed, position = shift
    moved = np.roll(table, (seed, position), axis=(0, 1))[4:-4, 4:-4].ravel()
    correlation = np.corrcoef(table[4:-4, 4:-4].ravel(), moved)[0, 1]
    assert abs(correlation) < 4 / np.sqrt(len(moved))


def test_no_seed_is_a_shifted_copy_of_another() -> None:
    """As raw SplitMix64 would be: its streams are windows of one sequence."""
    golden = 0x9E3779B97F4A7C15
    later = draw(golden, np.arange(1000))
    assert not np.intersect1d(draw(0, np.arange(1000)), later).size


def test_these_numbers_never_change() -> None:
    """A request that goes on after an upgrade draws what it would have drawn."""
    found = draw([0, 1, 2**64 - 1], [0, 7, 63]).tolist()
    assert found == [0.6524484863740322, 0.24696520214533768, 0.4829952327095377]
