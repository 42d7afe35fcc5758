"""Conversations over KV tiers bring what a runner with enough memory brings, in fp32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.worker_svc.checkpoints import FAMILIES, write
from tests.worker_svc.kv_tiers.conversations import ENOUGH, SCARCE, Job, answers, conversations
from tests.worker_svc.kv_tiers.memory_tier import MemoryTier
from tests.worker_svc.oracle import Outcome, make_runner
from tests.worker_svc.pipeline import in_turn, overlapped
from tests.worker_svc.ranks import run_group
from worker_svc.collectives.tp_group import TPGroup


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = Path(tmp_path_factory.mktemp("checkpoint"))
    write(FAMILIES["qwen2"], found, num_hidden_layers=5)
    return found


def fetched(outcome: Outcome) -> int:
    return sum(len(fetch.blocks) for plan in outcome.plans for fetch in plan.fetches)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("frames", [100, 20])
def test_what_comes_back_from_a_tier_is_exact(directory: Path, seed: int, frames: int) -> None:
    """With 100 frames nothing is evicted from the tier, with 20 most of it."""
    job = Job(directory, conversations(seed), SCARCE, frames)
    found, truth = job(TPGroup()), replace(job, scenario=ENOUGH, frames=0)(TPGroup())
    assert fetched(found) >= (12 if frames == 100 else 1)
    assert found.unfetched == 0
    assert answers(found) == answers(truth)
    for name, answer in found.answers.items():
        ours, theirs = torch.stack(answer.logits), torch.stack(truth.answers[name].logits)
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.usefixtures("by_layers")
def test_what_comes_back_by_layers_is_exact(directory: Path) -> None:
    job = Job(directory, conversations(4), SCARCE, 100)
    found, truth = job(TPGroup()), replace(job, scenario=ENOUGH, frames=0)(TPGroup())
    assert fetched(found) >= 12
    assert found.unfetched == 0
    assert answers(found) == answers(truth)


def test_what_does_not_come_back_is_computed_again(directory: Path) -> None:
    job = Job(directory, conversations(1), SCARCE, 100, broken_rank=0)
    found, truth = job(TPGroup()), replace(job, scenario=ENOUGH, frames=0)(TPGroup())
    assert found.unfetched >= 5
    assert answers(found) == answers(truth)


def test_overlapped_stages_bring_the_same(directory: Path) -> None:
    outcome = Job(directory, conversations(2), SCARCE, 40)(TPGroup())
    runners = [
        make_runner(directory, TPGroup(), SCARCE, tiers=lambda layout: [MemoryTier(layout, 40)])
        for _ in range(2)
    ]
    assert overlapped(runners[0], outcome.plans, outcome.settled) == in_turn(runners[1], outcome.plans)
    for runner in runners:
        assert runner.tier_failures == {}
        runner.close()


def test_ranks_agree_on_what_one_of_them_lacks(directory: Path, tmp_path: Path) -> None:
    asks = conversations(3, turns=2)
    jobs = {
        "enough": Job(directory, asks, ENOUGH),
        "whole": Job(directory, asks, SCARCE, 100),
        "broken": Job(directory, asks, SCARCE, 100, broken_rank=1),
    }
    found = run_group(2, jobs, tmp_path)
    assert fetched(found["whole"]) >= 5
    assert (found["whole"].unfetched, found["broken"].unfetched >= 3) == (0, True)
    assert answers(found["whole"]) == answers(found["enough"])
    assert answers(found["broken"]) == answers(found["enough"])
