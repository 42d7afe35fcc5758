"""Length distributions as they are written on the command line."""

from __future__ import annotations

import random
import statistics

import pytest

from bench.serve.lengths import parse_lengths


def drawn(text: str, count: int = 4000) -> list[int]:
    draw, source = parse_lengths(text), random.Random(1)
    return [draw(source) for _ in range(count)]


def test_fixed_is_always_the_same() -> None:
    assert set(drawn("fixed:17")) == {17}


def test_uniform_takes_every_length_of_its_range() -> None:
    found = drawn("uniform:3-9")
    assert set(found) == set(range(3, 10))
    assert abs(statistics.mean(found) - 6) < 0.2
    assert set(drawn("uniform:5-5")) == {5}


def test_normal_has_its_mean_and_deviation_and_stays_above_zero() -> None:
    found = drawn("normal:100,10")
    assert abs(statistics.mean(found) - 100) < 1
    assert abs(statistics.stdev(found) - 10) < 1
    assert min(drawn("normal:2,5")) == 1


@pytest.mark.parametrize(
    "text",
    [
        *("", "17", "fixed", "fixed:", "fixed:0", "fixed:-3", "fixed:x", "fixed:1.5", "zipf:3"),
        *("uniform:5-3", "uniform:0-3", "uniform:5", "uniform:1-2-3"),
        *("normal:5", "normal:0,1", "normal:5,-1", "normal:a,b"),
        *("normal:nan,1", "normal:inf,1", "normal:5,nan", "normal:5,inf"),
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be fixed:N, uniform:A-B or normal:MEAN,DEVIATION"):
        parse_lengths(text)
