"""Counter-based random numbers: a function of (seed, position) and nothing else.

So a request draws the same tokens in any batch, at any TP degree, and after a preemption.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniforms(seeds: npt.NDArray[np.uint64], positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """One number in [0, 1) for each pair, with 53 random bits."""
    bits: npt.NDArray[np.float64] = (random_bits(seeds, positions) >> np.uint64(11)).astype(np.float64)
    return bits * 2.0**-53


def random_bits(seeds: npt.NDArray[np.uint64], positions: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """64 random bits for each pair.

    Two rounds of the finalizer of SplitMix64 (Steele, Lea, Flood 2014), the first over the seed alone, so
    that neighbouring seeds do not give shifted copies of one sequence.
    """
    with np.errstate(over="ignore"):
        return _mix(_mix(seeds + _GOLDEN) + (positions.astype(np.uint64) + np.uint64(1)) * _GOLDEN)


def _mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
