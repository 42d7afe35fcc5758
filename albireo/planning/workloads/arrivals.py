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
    workload: Workload,
    *,
    concurrency: int | None = None,
    rate: float | None = None,
    burstiness: float | None = None,
) -> Workload:
    """The same requests with other arrivals, which the name then begins with.

    ``rate``: requests a second of an open loop; 0 or None is a closed loop of ``concurrency`` requests, 16
    where that is not given. ``burstiness``: of the open loop, see ``gaps``; None is a Poisson process. Of
    conversations the first turns arrive. Raises ValueError with the name of the argument, also for one that
    would not count.
    """
    if rate and concurrency is not None:
        raise ValueError("concurrency: is of a closed loop; with a rate, requests do not wait for others")
    if not rate and burstiness is not None:
        raise ValueError("burstiness: is of arrivals at a rate, and no rate is given")
    concurrency = CONCURRENCY if concurrency is None else concurrency
    rate, burstiness = rate or 0.0, 1.0 if burstiness is None else burstiness
    if not 0 <= rate < math.inf:
        raise ValueError(f"rate: {rate:g}: must be 0 or requests a second")
    if not MIN_BURSTINESS <= burstiness < math.inf:
        raise ValueError(f"burstiness: {burstiness:g}: must be at least {MIN_BURSTINESS}")
    first_turns = workload.first_turns
    what = "requests" if len(first_turns) == len(workload.requests) else "conversations"
    if rate:
        how = f"{rate:g} {what}/s" + (f" with burstiness {burstiness:g}" if burstiness != 1 else "")
        drawn = gaps(len(first_turns), rate, burstiness, random.Random(f"{workload.seed} arrivals"))
        arrivals = dict(zip(first_turns, accumulate(drawn), strict=True))
    elif concurrency >= 1:
        how, arrivals = f"{concurrency} {'' if what == 'requests' else what + ' '}at a time", {}
    else:
        raise ValueError(f"concurrency: {concurrency}: must be at least 1 where no rate is given")
    return replace(
        workload,
        name=f"{how}, {workload.name}",
        concurrency=0 if rate else concurrency,
        requests=tuple(replace(r, at=arrivals.get(i, 0.0)) for i, r in enumerate(workload.requests)),
    )


def gaps(count: int, rate: float, burstiness: float, draw: random.Random) -> list[float]:
    """Seconds between arrivals, Gamma-distributed with shape ``burstiness`` and mean 1 / ``rate``.

    As ``vllm bench serve --burstiness`` has it: 1 is a Poisson process, less has bursts and pauses, more is
    closer to equal gaps.
    """
    return [draw.gammavariate(burstiness, 1 / (rate * burstiness)) for _ in range(count)]
