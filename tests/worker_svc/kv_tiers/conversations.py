"""Conversations that come back when others have taken their blocks, on a runner with KV tiers.

Imported by every rank of a group: it must stay free of transformers, whose import takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from albireo.contract.plan import SamplingParams
from tests.worker_svc.kv_tiers.memory_tier import MemoryTier
from tests.worker_svc.oracle import Ask, Outcome, Scenario, make_runner, run
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.kv_tiers.interface import Tier
from worker_svc.kv_tiers.layout import KvLayout

VOCABULARY = 100
SCARCE = Scenario(num_blocks=16, max_model_len=112, chunk=32, ahead=2, prefix_cache=True)
ENOUGH = Scenario(num_blocks=200, max_model_len=112, chunk=32, ahead=2)


def conversations(seed: int, *, number: int = 8, turns: int = 3) -> list[Ask]:
    """Each turn begins with the last one's prompt; half of them are drawn, the others greedy."""
    draw = Random(seed)
    prompts = [[draw.randrange(VOCABULARY) for _ in range(draw.randrange(33, 50))] for _ in range(number)]
    asks: list[Ask] = []
    for turn in range(turns):
        for which in draw.sample(range(number), number):
            prompts[which] += [draw.randrange(VOCABULARY) for _ in range(8 if turn else 0)]
            temperature = 1.5 if which % 2 else 0.0
            sampling = SamplingParams(max_tokens=draw.randrange(2, 20), seed=which, temperature=temperature)
            name, after = f"{which}-{turn}", 6 * len(asks)
            asks.append(Ask(name, tuple(prompts[which]), sampling, after_step=after))
    return asks


def answers(outcome: Outcome) -> dict[str, list[int]]:
    return {name: answer.ids for name, answer in outcome.answers.items()}


@dataclass(frozen=True)
class Job:
    """The conversations on a group. ``broken_rank``: where every fetch finds the second layer damaged."""

    directory: Path
    asks: list[Ask]
    scenario: Scenario
    frames: int = 0
    broken_rank: int = -1

    def __call__(self, group: TPGroup) -> Outcome:
        def tiers(layout: KvLayout) -> Sequence[Tier]:
            tier = MemoryTier(layout, self.frames)
            tier.broken_layer = 1 if group.rank == self.broken_rank else None
            return [tier]

        runner = make_runner(self.directory, group, self.scenario, tiers=tiers if self.frames else None)
        outcome = run(runner, group, self.scenario, self.asks)
        runner.close()
        return outcome
