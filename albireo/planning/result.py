"""What a simulation has found: plain data, from which reports, comparisons and tests are made."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from albireo.contract.tiers import TierShape


@dataclass(slots=True)
class RequestTimes:
    """One request, in virtual seconds from the begin of the run."""

    sent: float
    first: float = 0.0  # when its first token was in the results log
    ended: float = 0.0  # when its last was
    tokens: int = 0
    error: str = ""  # why it was refused or ended early; empty otherwise

    @property
    def ttft(self) -> float:
        return self.first - self.sent

    @property
    def tpot(self) -> float | None:
        """(last token - first token) / (tokens - 1); None for a request of one token or none."""
        return (self.ended - self.first) / (self.tokens - 1) if self.tokens > 1 else None


@dataclass(slots=True)
class StepTotals:
    """Sums over all steps of one run; durations in virtual seconds."""

    steps: int = 0
    decode_rows: int = 0
    wasted_rows: int = 0
    prefill_tokens: int = 0  # computed ones, also again after a preemption
    cached_tokens: int = 0  # that were not computed, since their KV was there or was fetched; likewise
    fetched_tokens: Counter[int] = field(default_factory=Counter)  # of these, by the number of the tier that
    # had them, streamed ones included
    streamed_tokens: int = 0  # output tokens of requests that are too long for the blocks
    kv_wait: float = 0.0  # time in which layers waited for KV, a part of T3
    t1: float = 0.0  # whole durations, hidden or not
    t2: float = 0.0
    t3: float = 0.0
    t4: float = 0.0
    t5: float = 0.0
    visible: float = 0.0  # time in which the device waited between two steps of running requests; the sum of
    visible_t1: float = 0.0  # what of it went by after the result that a plan is based on, until the plan,
    visible_t2: float = 0.0  # from the plan to the forward,
    visible_t5: float = 0.0  # and before that result
    idle: float = 0.0  # time in which the device waited for requests
    kv_blocks_used: float = 0.0  # time integral of used blocks, in block seconds


@dataclass(slots=True)
class SimulationResult:
    """One run of one group, from its first submission to its last end. Always simulated."""

    requests: list[RequestTimes]
    totals: StepTotals
    seconds: float  # virtual
    preemptions: int
    num_blocks: int  # KV blocks of the group
    peak_blocks: int
    step_periods: list[tuple[float, int]] = field(default_factory=list)  # begin to begin in s, decoding rows
    result_periods: list[tuple[float, int]] = field(default_factory=list)  # result to result, decoding rows
    kv_use: list[tuple[float, int]] = field(default_factory=list)  # from when in s, blocks that slots hold
    tiers: tuple[TierShape, ...] = ()  # of the group
    cpu_seconds: float = 0.0  # what the simulation took; not in reports that must be the same each time
