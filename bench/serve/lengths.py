"""Length distributions, as written on the command line of ``albireo bench serve``."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

Draw = Callable[[random.Random], int]


def parse_lengths(text: str) -> Draw:
    """``fixed:N``, ``uniform:A-B`` or ``normal:MEAN,DEVIATION``; drawn lengths are at least 1.

    Raises ValueError.
    """
    kind, _, numbers = text.partition(":")
    try:
        if kind == "fixed":
            length = int(numbers)
            if length >= 1:
                return lambda draw: length
        elif kind == "uniform":
            low, high = map(int, numbers.split("-"))
            if 1 <= low <= high:
                return lambda draw: draw.randint(low, high)
        elif kind == "normal":
            mean, deviation = map(float, numbers.split(","))
            if 1 <= mean < math.inf and 0 <= deviation < math.inf:
                return lambda draw: max(1, round(draw.gauss(mean, deviation)))
    except ValueError:
        pass  # reported below, with the whole text
    raise ValueError(f"{text!r}: must be fixed:N, uniform:A-B or normal:MEAN,DEVIATION, lengths at least 1")
