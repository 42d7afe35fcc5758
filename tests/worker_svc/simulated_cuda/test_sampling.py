"""The sampler on the simulated device brings what it brings on the CPU, and waits for nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.worker_svc.sampled import CPU, MIXED, Bench, Row, logits_of
from tests.worker_svc.simulated_cuda.device import CUDA
from tests.worker_svc.simulated_cuda.installed import simulated_cuda
from worker_svc.sampling import ranking

VOCABULARY = 700
STEPS = 3


def sampled(device: torch.device) -> list[Tensor]:
    """What each step brings; penalties see the steps before. Outputs are fetched after all are launched."""
    bench = Bench(VOCABULARY, slots=len(MIXED), device=device)
    rows = {slot: Row(sampling) for slot, sampling in enumerate(MIXED)}
    # Many are equal, but not where log-probabilities are wanted: the most likely ids are not defined then.
    rounded = [slot for slot, sampling in enumerate(MIXED) if sampling.logprobs < 0]
    found = []
    for number in range(STEPS):
        step = bench.decode(len(MIXED)) if number else bench.admit(rows)
        logits = logits_of(len(MIXED), VOCABULARY, seed=number)
        logits[rounded] = logits[rounded].round()
        logits = logits.to(device)
        torch.cuda.set_sync_debug_mode("error")
        found.append(bench.sampler(logits, step.params, step.layout))
        torch.cuda.set_sync_debug_mode("default")
    return [words.cpu() for words in found]


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_it_brings_what_the_cpu_brings(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "SORTED", 128)  # rows are in pieces
    with simulated_cuda(seed):
        expected = sampled(CPU)
        assert all(map(torch.equal, sampled(CUDA), expected))
