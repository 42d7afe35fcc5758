"""Two ranks with a device each: their collectives, in graphs and between them, and parallel sampling."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.worker_svc.checkpoints import FAMILIES, write
from tests.worker_svc.collectives.test_collectives import Calls
from tests.worker_svc.cuda.rank_steps import RankSteps, run_on_cuda
from tests.worker_svc.cuda.scene import MIXED, amount, staggered
from tests.worker_svc.ranks import Job
from tests.worker_svc.sampling.test_controls import PLENTY, asks, check
from worker_svc.sampling.layout import SamplingMode


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = Path(tmp_path_factory.mktemp("ranks")) / "qwen3"
    write(FAMILIES["qwen3-tied"], found)
    return found


def test_collectives(cuda: torch.device, tmp_path: Path) -> None:
    run_on_cuda(2, {"calls": Calls(device="cuda")}, tmp_path)


def test_graphs_bring_what_the_same_steps_bring_kernel_by_kernel(cuda: torch.device, tmp_path: Path) -> None:
    plans = list(staggered(6, 40, MIXED))
    jobs = {str(graphs): RankSteps(plans, "parallel", graphs) for graphs in (True, False)}
    found = run_on_cuda(2, jobs, tmp_path)
    assert found["True"].ids == found["False"].ids
    assert found["True"].buckets >= {1, 2, 4}
    assert not found["False"].buckets


def test_ranks_sample_in_parallel_what_one_samples_for_both(
    directory: Path, cuda: torch.device, tmp_path: Path
) -> None:
    modes: tuple[SamplingMode, ...] = ("driver", "parallel")
    some = asks()[: amount(24, simulated=5)]
    jobs = {str(mode): Job(directory, PLENTY, some, mode, "cuda") for mode in modes}
    found = run_on_cuda(2, jobs, tmp_path)
    check(found["parallel"], found["driver"])
