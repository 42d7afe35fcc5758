"""Length distributions, as written on the command line; ``make_workload`` parses and draws them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

KINDS = "fixed:N, uniform:A-B, normal:MEAN,DEVIATION or lognormal:MEDIAN,SIGMA"
LONGEST = 1 << 24
"""Tokens. No context is longer; a heavy tail must not overflow."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """One distribution. All lengths are in tokens."""

    shortest: int  # no draw is below it
    draw: Callable[[random.Random], int]


def parse_lengths(text: str) -> Lengths:
    """``fixed:N``, ``uniform:A-B``, ``normal:MEAN,DEVIATION`` or ``lognormal:MEDIAN,SIGMA``.

    SIGMA is the standard deviation of the logarithm: two thirds of all lengths are between MEDIAN / e^SIGMA
    and MEDIAN * e^SIGMA. Lengths are at least 1. Raises ValueError.
    """
    kind, _, numbers = text.partition(":")
    try:
        if kind == "fixed":
            length = int(numbers)
            if 1 <= length <= LONGEST:
                return Lengths(length, lambda draw: length)
        elif kind == "uniform":
            low, high = map(int, numbers.split("-"))
            if 1 <= low <= high <= LONGEST:
                return Lengths(low, lambda draw: draw.randint(low, high))
        elif kind == "normal":
            mean, deviation = map(float, numbers.split(","))
            if 1 <= mean <= LONGEST and 0 <= deviation < math.inf:
                return Lengths(1, lambda draw: _rounded(draw.gauss(mean, deviation)))
        elif kind == "lognormal":
            median, sigma = map(float, numbers.split(","))
            if 1 <= median <= LONGEST and 0 <= sigma <= 10:
                return Lengths(1, lambda draw: _rounded(draw.lognormvariate(math.log(median), sigma)))
    except ValueError:
        pass  # reported below, with the whole text
    raise ValueError(f"{text!r}: must be {KINDS}, lengths from 1 to {LONGEST}")


def _rounded(length: float) -> int:
    return round(min(max(length, 1), LONGEST))
