"""When requests arrive: in a closed loop, or by a Poisson process or one that is burstier or more even."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import accumulate

from albireo.planning.workload import Workload

CONCURRENCY = 16
"""Of a closed loop, where nothing else is asked for."""
MIN_BURSTINESS = 0.01
"""Below it nearly all requests come at once."""


def with_arrivals(
    workload: Workload, *, concurrency: int = CONCURRENCY, rate: float = 0.0, burstiness: float = 1.0
) -> Workload:
    """The same requests with other arrivals, which the name then begins with.

    ``rate``: requests a second of an open loop; 0 is a closed loop of ``concurrency`` requests.
    ``burstiness``: of the open loop, see ``gaps``. Raises ValueError with the name of the argument.
    """
    if not 0 <= rate < math.inf:
        raise ValueError(f"rate: {rate:g}: must be 0 or requests a second")
    if not MIN_BURSTINESS <= burstiness < math.inf:
        raise ValueError(f"burstiness: {burstiness:g}: must be at least {MIN_BURSTINESS}")
    if rate:
        how = f"{rate:g} requests/s" + (f" with burstiness {burstiness:g}" if burstiness != 1 else "")
        drawn = gaps(len(workload.requests), rate, burstiness, random.Random(f"{workload.seed} arrivals"))
        arrivals = list(accumulate(drawn))
    elif concurrency >= 1:
        how, arrivals = f"{concurrency} at a time", [0.0] * len(workload.requests)
    else:
        raise ValueError(f"concurrency: {concurrency}: must be at least 1 where no rate is given")
    return replace(
        workload,
        name=f"{how}, {workload.name}",
        concurrency=0 if rate else concurrency,
        requests=tuple(replace(r, at=at) for r, at in zip(workload.requests, arrivals, strict=True)),
    )


def gaps(count: int, rate: float, burstiness: float, draw: random.Random) -> list[float]:
    """Seconds between arrivals, Gamma-distributed with shape ``burstiness`` and mean 1 / ``rate``.

    As ``vllm bench serve --burstiness`` has it: 1 is a Poisson process, less has bursts and pauses, more is
    closer to equal gaps.
    """
    return [draw.gammavariate(burstiness, 1 / (rate * burstiness)) for _ in range(count)]
