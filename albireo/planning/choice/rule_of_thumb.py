"""The TP degree by the paper's rule of thumb, and by its definition.

Both are shown next to the choice by simulation. Source: *Scaling LLM Inference Beyond Amdahl's Limits via
Eliminating Non-Scalable Overheads*, arXiv 2606.01927v1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping


def rule_of_thumb(weight_bytes: float, device_bytes: float) -> int:
    """``t_e = 4 M / C``, rounded to a power of two: M the bytes of the weights, C the memory of a device.

    The paper does not say how it rounds. Up, in units of the exponent, gives the t_e of all models that it
    measured: 13B at 2, 32B at 4, 70B at 8, on devices of 80 GB.
    """
    return 1 << max(0, math.ceil(math.log2(4 * weight_bytes / device_bytes)))


def t_e_by_definition(throughput: Mapping[int, float]) -> int:
    """The largest t up to which ``T(t) >= 2 T(t/2)``, from the smallest degree on.

    ``throughput``: of one group, by TP degree, under the load that it gets; at least one. Only degrees that
    are the smallest one times a power of two are looked at.
    """
    best = min(throughput)
    while throughput.get(2 * best, 0.0) >= 2 * throughput[best]:
        best *= 2
    return best
