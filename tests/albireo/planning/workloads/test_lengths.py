"""Length distributions as they are written on the command line."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from albireo.planning.workloads.lengths import LONGEST, parse_lengths


def drawn(text: str, count: int = 4000) -> list[int]:
    draw, source = parse_lengths(text).draw, random.Random(1)
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


def test_lognormal_has_its_median_and_its_spread_is_a_factor() -> None:
    found = sorted(drawn("lognormal:200,0.5"))
    assert abs(statistics.median(found) - 200) < 6
    # A standard deviation below and above the median is a factor of e^0.5.
    assert found[len(found) * 16 // 100] == pytest.approx(200 / math.exp(0.5), rel=0.06)
    assert found[len(found) * 84 // 100] == pytest.approx(200 * math.exp(0.5), rel=0.06)
    assert set(drawn("lognormal:7,0")) == {7}


@pytest.mark.parametrize(
    "text", ["fixed:17", "uniform:3-9", "normal:2,5", "lognormal:2,3", "lognormal:100000,10"]
)
def test_no_length_is_below_the_shortest_or_above_the_longest(text: str) -> None:
    assert parse_lengths(text).shortest <= min(drawn(text)) <= max(drawn(text)) <= LONGEST


@pytest.mark.parametrize(
    "text",
    [
        *("", "17", "fixed", "fixed:", "fixed:0", "fixed:-3", "fixed:x", "fixed:1.5", "zipf:3"),
        *("uniform:5-3", "uniform:0-3", "uniform:5", "uniform:1-2-3"),
        *("normal:5", "normal:0,1", "normal:5,-1", "normal:a,b"),
        *("lognormal:5", "lognormal:0,1", "lognormal:5,-1", "lognormal:5,nan", "lognormal:5,11"),
        *("fixed:99999999", "uniform:1-99999999", "normal:99999999,1"),
        *("normal:nan,1", "normal:inf,1", "normal:5,nan", "normal:5,inf"),
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(
        ValueError, match="must be fixed:N, uniform:A-B, normal:MEAN,DEVIATION or lognormal:MEDIAN"
    ):
        parse_lengths(text)
