"""What the devices spend their time on, for each output token: the sum by which splits are compared.

With D devices and a throughput of x tokens/s, a token takes D / x device seconds. These are split into the
terms of the forward (weights, KV, collectives, ...), sampling, and the time in which devices wait, so a
difference of throughput is a difference of terms.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from albireo.planning.result import StepTotals
from worker_svc.cost.device import STEADY, Variation
from worker_svc.cost.interface import CostModel, HostCost
from worker_svc.cost.work import StepWork

SAMPLING = "sampling"
HOST = "host work that is not hidden"
TIERS = "layers that wait for KV"
WAITING = "waiting for requests"
UNUSED = "unused devices"


class TermsModel(CostModel, Protocol):
    """A cost model that says what its T3 consists of."""

    def forward_terms(self, work: StepWork) -> Mapping[str, float]:
        """Seconds by term; their sum is T3."""
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """Sums over the steps so far."""

    seconds: Mapping[str, float] = field(default_factory=dict)  # of the forward by term, and of sampling
    steps: int = 0
    rows: int = 0  # decoding ones

    def since(self, before: Reading) -> Reading:
        seconds = {term: value - before.seconds.get(term, 0.0) for term, value in self.seconds.items()}
        return Reading(seconds, self.steps - before.steps, self.rows - before.rows)


class MeteredCost:
    """A cost model that adds up what it is asked for; a simulation asks once a step.

    It has no variation: what is drawn by chance must not decide between splits."""

    def __init__(self, cost: TermsModel) -> None:
        self._cost = cost
        self._seconds: dict[str, float] = defaultdict(float)
        self._steps = self._rows = 0

    @property
    def name(self) -> str:
        return self._cost.name

    @property
    def tp(self) -> int:
        return self._cost.tp

    @property
    def variation(self) -> Variation:
        return STEADY

    def read(self) -> Reading:
        return Reading(dict(self._seconds), self._steps, self._rows)

    def forward_seconds(self, work: StepWork) -> float:
        terms = self._cost.forward_terms(work)
        for term, seconds in terms.items():
            self._seconds[term] += seconds
        self._steps += 1
        self._rows += work.decodes
        return sum(terms.values())

    def sampling_seconds(self, work: StepWork, *, parallel: bool) -> float:
        seconds = self._cost.sampling_seconds(work, parallel=parallel)
        self._seconds[SAMPLING] += seconds
        return seconds

    def host(self, work: StepWork) -> HostCost:
        return self._cost.host(work)


def run_terms(computed: Mapping[str, float], seconds: float, totals: StepTotals) -> dict[str, float]:
    """The ``seconds`` of a group by term: what it ``computed``, and the rest, in which its devices waited.

    That is divided as in the whole run, ``totals``, into waits of running requests for the host and for KV
    of a tier, and waits for requests.
    """
    rest = max(0.0, seconds - sum(computed.values()))
    waits = {HOST: totals.visible, TIERS: totals.kv_wait, WAITING: totals.idle}
    if not (waited := sum(waits.values())):
        waits[HOST] = waited = 1.0
    terms = {**computed, **{term: rest * wait / waited for term, wait in waits.items()}}
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
