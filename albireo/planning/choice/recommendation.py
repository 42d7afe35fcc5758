"""The answer of ``albireo plan``: all outcomes, the choice and its reasons, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from albireo.planning.choice.best import Choice, choose, without_failures
from albireo.planning.choice.commands import compose_groups, compose_settings, kubernetes_overlay, up_command
from albireo.planning.choice.explanation import explain
from albireo.planning.choice.outcome import Outcome
from albireo.planning.choice.question import Question
from albireo.planning.choice.rule_of_thumb import rule_of_thumb, t_e_by_definition
from albireo.planning.choice.split import UnfitSplit
from worker_svc.cost.shape import ModelShape


@dataclass(frozen=True, slots=True)
class Recommendation:
    question: Question
    outcomes: list[Outcome]
    unfit: list[UnfitSplit]
    choice: Choice
    reasons: list[str]
    rule_of_thumb: int  # TP degree
    t_e: int | None  # by definition, from the simulated throughputs; None where these do not give it

    @property
    def degrees(self) -> str:
        """The rule of thumb and the definition, in one line."""
        rule = f"rule of thumb 4 M / C: t = {self.rule_of_thumb}"
        if self.rule_of_thumb > self.question.devices:
            rule += ", more than the devices"
        if self.t_e is None:
            return f"{rule}; t_e by its definition needs a closed loop in which no request fails"
        return f"{rule}; t_e, the largest t up to which T(t) >= 2 T(t/2), by these figures: {self.t_e}"

    def as_json(self) -> dict[str, Any]:
        question, best = self.question, self.choice.best.split
        return {
            "simulated": True,
            "setup": question.setup,
            "workload": question.workload.name,
            "device": {"name": question.device.name, "source": question.device.source},
            "devices": question.devices,
            "synchronous": question.serving.synchronous,
            "limits": {"ttft_p99": question.limits.ttft_p99, "tpot_p99": question.limits.tpot_p99},
            "seed": question.workload.seed,
            "splits": [outcome.as_json() for outcome in self.outcomes],
            "do_not_fit": {str(unfit.split): unfit.reason for unfit in self.unfit},
            "best": str(best),
            "within_limits": self.choice.within,
            "reasons": self.reasons,
            "rule_of_thumb": self.rule_of_thumb,
            "t_e": self.t_e,
            "up": up_command(best, question.serving),
            "compose": compose_settings(best, question.serving),
            "compose_groups": compose_groups(best, question.serving),
            "kubernetes": kubernetes_overlay(best, question.serving),
        }


def recommend(question: Question, outcomes: Sequence[Outcome], unfit: Sequence[UnfitSplit]) -> Recommendation:
    """``outcomes``: at least one."""
    choice = choose(outcomes, question.limits)
    return Recommendation(
        question,
        list(outcomes),
        list(unfit),
        choice,
        explain(choice, outcomes, question.limits),
        rule_of_thumb(ModelShape(question.config, 1).weight_bytes, question.device.memory_gib * 2**30),
        _t_e(question, outcomes),
    )


def _t_e(question: Question, outcomes: Sequence[Outcome]) -> int | None:
    """In an open loop the throughput is that of the arrivals, and says nothing of T."""
    served = without_failures(outcomes)
    if not question.workload.concurrency or not served:
        return None
    return t_e_by_definition({outcome.split.tp: outcome.group_tokens_per_second for outcome in served})
