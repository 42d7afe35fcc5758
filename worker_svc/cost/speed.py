"""How fast a group is in two numbers, which it announces: of its steps, before it has served any.

A rank's runner measures them when it starts, or takes them of its cost model.
"""

from __future__ import annotations

from dataclasses import dataclass

from worker_svc.cost.interface import CostModel
from worker_svc.cost.work import StepWork

PROMPT = 128
"""Tokens of the prompt by which the speed of prefill is found."""


@dataclass(frozen=True, slots=True)
class StepSpeed:
    """Seconds of forward and sampling together; 0 where they are not known."""

    step_seconds: float = 0.0  # of a step that decodes one row
    prefill_token_seconds: float = 0.0  # that a token of a prompt adds to a step

    @classmethod
    def of_steps(cls, decode: float, prefill: float, tokens: int) -> StepSpeed:
        """``prefill``: seconds of a step that computes a prompt of ``tokens`` and samples one row."""
        return cls(decode, max(0.0, prefill - decode) / max(1, tokens - 1))


def speed_of(cost: CostModel) -> StepSpeed:
    """The speed that a cost model gives a group."""
    decode = StepWork(decodes=1, context=PROMPT, greedy=1)
    prefill = StepWork(prefill=PROMPT, prefill_pairs=PROMPT * (PROMPT + 1) // 2, greedy=1)
    alone, whole = (
        cost.forward_seconds(work) + cost.sampling_seconds(work, parallel=False) for work in (decode, prefill)
    )
    return StepSpeed.of_steps(alone, whole, PROMPT)
