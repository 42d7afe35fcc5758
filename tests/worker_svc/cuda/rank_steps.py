"""Plans through all ranks of a group on CUDA, each with a device of its own.

Imported by every rank, as ``tests/worker_svc/ranks.py`` is: it must stay free of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest
import torch
from torch import Tensor

from albireo.contract.plan import Plan
from tests.worker_svc.cuda.scene import ids, make_runner, overlapped
from tests.worker_svc.ranks import run_group
from tests.worker_svc.simulated_cuda.device import device, is_simulated
from tests.worker_svc.simulated_cuda.ranks import OnSimulated
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.sampling.layout import SamplingMode

Found = TypeVar("Found")


def run_on_cuda(size: int, jobs: Mapping[str, Callable[[TPGroup], Found]], scratch: Path) -> dict[str, Found]:
    """As :func:`tests.worker_svc.ranks.run_group`, on cards or on simulated devices, as the test has one."""
    if is_simulated():
        seed = device().policy.seed
        return run_group(size, {name: OnSimulated(job, seed) for name, job in jobs.items()}, scratch)
    if torch.cuda.device_count() < size:
        pytest.skip(f"needs {size} CUDA devices")
    return run_group(size, jobs, scratch, device="cuda")


class Steps(NamedTuple):
    """What rank 0 found."""

    ids: list[list[int]]  # of each step, by slot
    buckets: set[int]  # whose graphs have run


@dataclass(frozen=True)
class RankSteps:
    """A job: the plans through the stages of a rank, with the bundled model."""

    plans: list[Plan]
    sampling: SamplingMode
    cuda_graphs: bool

    def __call__(self, group: TPGroup) -> Steps:
        runner = make_runner(
            torch.device("cuda"), group=group, sampling=self.sampling, cuda_graphs=self.cuda_graphs
        )
        used = set[int]()
        if runner._graphs is not None:
            decodes = runner._graphs.decodes
            decodes.run = _noting(used, decodes.run)  # type: ignore[assignment, method-assign]
        return Steps(ids(overlapped(runner, self.plans)), used)


def _noting(used: set[int], run: Callable[[int, Tensor], Tensor]) -> Callable[[int, Tensor], Tensor]:
    def run_(rows: int, words: Tensor) -> Tensor:
        used.add(rows)
        return run(rows, words)

    return run_
