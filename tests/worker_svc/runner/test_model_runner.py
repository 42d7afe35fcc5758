"""A runner beyond single right answers: overlapped stages, bf16, rows that are not numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from albireo.contract.plan import Finish
from tests.worker_svc.cases import GREEDY, SCENARIOS, Case
from tests.worker_svc.checkpoints import FAMILIES, VOCAB, Reference, unambiguous, write
from tests.worker_svc.oracle import Ask, Scenario, make_runner, run
from tests.worker_svc.pipeline import in_turn, overlapped
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.model.weight_files import SINGLE


def test_overlapped_stages_bring_the_same(cases: dict[str, Case]) -> None:
    case, way = cases["llama31"], SCENARIOS["scarce"]
    group = TPGroup()
    plans = run(make_runner(case.directory, group, way), group, way, case.asks).plans
    runner = make_runner(case.directory, group, way)
    assert overlapped(runner, plans) == in_turn(runner, plans)


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_is_as_near_to_fp32_as_that_of_transformers(cases: dict[str, Case], family: str) -> None:
    """Near ties make the ids of small random models a matter of luck in bf16; the logits are not."""
    case, way, group = cases[family], Scenario(), TPGroup()
    asks = [replace(ask, sampling=replace(GREEDY, max_tokens=1)) for ask in case.asks]
    runner = make_runner(case.directory, group, way, dtype=torch.bfloat16)
    outcome = run(runner, group, way, asks)
    ours = torch.stack([outcome.answers[ask.name].logits[0] for ask in asks])
    exact = torch.stack([case.truths[ask.name].logits[0] for ask in asks])
    reference = Reference(case.directory, torch.bfloat16)
    theirs = torch.stack([reference.logits(ask.prompt)[-1] for ask in asks])
    assert (ours - exact).norm() < 1.5 * (theirs - exact).norm()
    assert 0 < (ours - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("together", [True, False])
def test_a_request_without_numbers_fails_alone(tmp_path: Path, together: bool) -> None:
    """Neither the step's other requests nor those that get its blocks later see anything of it."""
    write(FAMILIES["llama2"], tmp_path)
    reference = Reference(tmp_path)
    good = [(name, *unambiguous(reference, (), length, GREEDY)) for name, length in (("a", 20), ("b", 37))]
    used = {token for _, prompt, truth in good for token in (*prompt, *truth.ids)}
    poison = min(set(range(VOCAB)) - used)
    tensors = load_file(tmp_path / SINGLE)
    tensors["model.embed_tokens.weight"][poison] = float("nan")
    save_file(tensors, tmp_path / SINGLE)

    asks = [Ask("bad", (1, 2, poison, *range(10, 47)), GREEDY)]
    asks += [Ask(name, prompt, GREEDY, after_step=1) for name, prompt, _ in good]
    way, group = Scenario(num_blocks=14, max_model_len=112, together=together), TPGroup()
    outcome = run(make_runner(tmp_path, group, way), group, way, asks)
    assert outcome.answers["bad"].finish is Finish.ERROR
    first, later = outcome.plans[0], outcome.plans[1:]
    granted = {block for plan in later for grant in plan.grants for block in grant.blocks}
    assert granted.intersection(first.grants[0].blocks), "no request got a block of the failed one"
    for name, _, truth in good:
        assert outcome.answers[name].ids == truth.ids
