"""What the devices spend their time on, for each output token: the sum by which splits are compared.

With D devices and a throughput of x tokens/s, a token takes D / x device seconds. These are split into the
terms of the forward (weights, KV, collectives, ...), sampling, and the time in which devices wait, so a
difference of throughput is a difference of terms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Protocol

from albireo.planning.result import StepTotals
from worker_svc.cost.interface import CostModel, HostCost
from worker_svc.cost.work import StepWork

SAMPLING = "sampling"
HOST = "host work that is not hidden"
WAITING = "waiting for requests"
UNUSED = "unused devices"


class TermsModel(CostModel, Protocol):
    """A cost model that says what its T3 consists of."""

    def forward_terms(self, work: StepWork) -> Mapping[str, float]:
        """Seconds by term; their sum is T3."""
        ...


class MeteredCost:
    """A cost model that adds up the terms of all steps it is asked for; a simulation asks once a step."""

    def __init__(self, cost: TermsModel) -> None:
        self._cost = cost
        self.forward: Counter[str] = Counter()  # seconds by term

    @property
    def name(self) -> str:
        return self._cost.name

    @property
    def tp(self) -> int:
        return self._cost.tp

    def forward_seconds(self, work: StepWork) -> float:
        for term, seconds in self._cost.forward_terms(work).items():
            self.forward[term] += seconds
        return self._cost.forward_seconds(work)

    def sampling_seconds(self, work: StepWork, *, parallel: bool) -> float:
        return self._cost.sampling_seconds(work, parallel=parallel)

    def host(self, work: StepWork) -> HostCost:
        return self._cost.host(work)


def group_seconds(forward: Mapping[str, float], totals: StepTotals, seconds: float) -> dict[str, float]:
    """What one group did in its run of ``seconds``: seconds by term, which add up to the run."""
    waiting = seconds - totals.t3 - totals.t4 - totals.visible
    terms = {**forward, SAMPLING: totals.t4, HOST: totals.visible, WAITING: max(0.0, waiting)}
    return {term: value for term, value in terms.items() if value > 0}


def per_token(
    terms: Mapping[str, float], *, devices: int, used: float, tokens_per_second: float
) -> dict[str, float]:
    """Device seconds of one output token by term, of all ``devices``; the sum is devices / throughput.

    ``terms``: of one group. ``used``: devices of the groups that have requests.
    """
    run = sum(terms.values())
    found = {term: value / run * used / tokens_per_second for term, value in terms.items()}
    if devices > used:
        found[UNUSED] = (devices - used) / tokens_per_second
    return found
