"""Requests on a checkpoint, what each must bring, and the ways in which they are run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from albireo.contract.plan import Finish, SamplingParams
from tests.worker_svc.checkpoints import Family, Reference, Truth, unambiguous, write
from tests.worker_svc.oracle import Ask, Outcome, Scenario

GREEDY = SamplingParams(max_tokens=64, seed=0, temperature=0.0)

SCENARIOS = {
    "alone": Scenario(together=False),
    "crowd": Scenario(chunk=13, ahead=2, prefix_cache=True),
    "crowd-uncached": Scenario(chunk=13, ahead=2),
    # Seven blocks hold the longest request; all five together want almost thirty.
    "scarce": Scenario(num_blocks=16, max_model_len=112, chunk=13, ahead=2, prefix_cache=True),
    "scarce-uncached": Scenario(num_blocks=16, max_model_len=112, chunk=13, ahead=2),
}


@dataclass(frozen=True)
class Case:
    """A checkpoint, requests, and the truth about each by name."""

    directory: Path
    asks: list[Ask]
    truths: dict[str, Truth]

    def check(self, scenario: str, outcome: Outcome) -> None:
        """The run was what its name says, and every request brought what transformers brings."""
        _check_way(scenario, outcome)
        for ask in self.asks:
            answer, truth = outcome.answers[ask.name], self.truths[ask.name]
            assert answer.ids == truth.ids, ask.name
            assert answer.finish is (Finish.STOP if ask.sampling.stop_ids else Finish.LENGTH)
            torch.testing.assert_close(torch.stack(answer.logits), truth.logits, atol=1e-4, rtol=0)


def make_case(family: Family, directory: Path) -> Case:
    """Writes a checkpoint, and asks transformers about it."""
    write(family, directory)
    reference = Reference(directory)
    asks, truths = [], {}

    def add(name: str, prefix: tuple[int, ...], length: int, sampling: SamplingParams, after: int) -> None:
        prompt, truths[name] = unambiguous(reference, prefix, length, sampling)
        asks.append(Ask(name, prompt, sampling, after))

    add("long", (), 40, GREEDY, 0)
    add("short", (), 7, GREEDY, 0)
    add("drawn", (), 20, replace(GREEDY, temperature=1.5, seed=2**63 + 11), 2)
    add("stopped", (), 33, replace(GREEDY, max_tokens=24), 3)
    # Comes when the blocks that it shares with the first are computed.
    add("shared", asks[0].prompt[:32], 40, GREEDY, 8)
    _stop_at_the_last(asks, truths)
    return Case(directory, asks, truths)


def _stop_at_the_last(asks: list[Ask], truths: dict[str, Truth]) -> None:
    """Ends a request by a stop id, which no scheduler can foresee: with a plan ahead, a row is wasted."""
    ids = truths["stopped"].ids
    end = max(ids.index(token) for token in ids)  # the last id that has not come before
    truths["stopped"] = Truth(ids[: end + 1], truths["stopped"].logits[: end + 1])
    index = next(i for i, ask in enumerate(asks) if ask.name == "stopped")
    asks[index] = replace(asks[index], sampling=replace(GREEDY, stop_ids=(ids[end],)))


def _check_way(scenario: str, outcome: Outcome) -> None:
    way = SCENARIOS[scenario]
    chunks = [chunk for plan in outcome.plans for chunk in plan.chunks]
    assert any(chunk.start % 16 for chunk in chunks) is (way.chunk == 13)
    assert (max(plan.num_decodes for plan in outcome.plans) > 1) is way.together
    assert outcome.prefix_hit_tokens == (32 if way.prefix_cache else 0)
    assert (outcome.preemptions > 0) is scenario.startswith("scarce")
    again = [a for plan in outcome.plans for a in plan.admissions if a.num_outputs]
    assert any(a.num_cached > 0 for a in again) is (scenario == "scarce")
