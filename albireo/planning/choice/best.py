"""Which split is chosen: the highest throughput within the operator's limits on latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from albireo.planning.choice.outcome import Outcome

EQUAL = 0.02
"""Throughputs that differ by less count as equal; then the lower TPOT decides. In an open loop that is not
saturated every split has the throughput of the arrivals."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Most seconds at the 99th percentile; None: any."""

    ttft_p99: float | None = None
    tpot_p99: float | None = None

    def excess(self, outcome: Outcome) -> dict[str, float]:
        """What exceeds its limit: value over limit, by name."""
        pairs = (
            ("TTFT P99", outcome.ttft.get("p99", 0.0), self.ttft_p99),
            ("TPOT P99", outcome.tpot.get("p99", 0.0), self.tpot_p99),
        )
        return {name: value / limit for name, value, limit in pairs if limit and value > limit}


@dataclass(frozen=True, slots=True)
class Choice:
    best: Outcome
    within: bool  # False: no split keeps the limits, and this one comes nearest


def without_failures(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that served all requests. Latencies of the others leave out the requests that were refused."""
    return [outcome for outcome in outcomes if not outcome.failed]


def choose(outcomes: Sequence[Outcome], limits: Limits) -> Choice:
    """``outcomes``: at least one. Those in which requests fail count only where requests fail in all."""
    outcomes = without_failures(outcomes) or outcomes
    within = [outcome for outcome in outcomes if not limits.excess(outcome)]
    if within:
        return Choice(_fastest(within), within=True)
    return Choice(min(outcomes, key=lambda outcome: max(limits.excess(outcome).values())), within=False)


def _fastest(outcomes: Sequence[Outcome]) -> Outcome:
    highest = max(outcome.tokens_per_second for outcome in outcomes)
    equal = [outcome for outcome in outcomes if outcome.tokens_per_second >= (1 - EQUAL) * highest]
    return min(equal, key=lambda outcome: (outcome.tpot.get("p99", 0.0), -outcome.tokens_per_second))
