"""A tensor-parallel group of real processes over gloo that runs jobs and hands rank 0's outcomes back.

Imported by every rank: it must stay free of transformers, whose import takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import start_processes

from tests.worker_svc.oracle import Ask, Outcome, Scenario, make_runner, run
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.sampling.layout import SamplingMode

Found = TypeVar("Found")

# A process that has imported this module makes every rank by a fork: each rank alone would import torch.
get_context("forkserver").set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Job:
    """Requests to run on a checkpoint."""

    directory: Path
    scenario: Scenario
    asks: list[Ask]
    sampling: SamplingMode = "auto"
    device: str = "cpu"

    def __call__(self, group: TPGroup) -> Outcome:
        runner = make_runner(
            self.directory, group, self.scenario, device=torch.device(self.device), sampling=self.sampling
        )
        return run(runner, group, self.scenario, self.asks)


def run_group(
    size: int, jobs: Mapping[str, Callable[[TPGroup], Found]], scratch: Path, device: str = "cpu"
) -> dict[str, Found]:
    """What the jobs return on rank 0, by their names. Raises what any rank raised. On CUDA a GPU each."""
    # daemon: a test that times out leaves none.
    start_processes(
        _rank, args=(size, jobs, scratch, device), nprocs=size, daemon=True, start_method="forkserver"
    )
    found: dict[str, Found] = torch.load(scratch / "found", weights_only=False)
    return found


def _rank(
    rank: int, size: int, jobs: Mapping[str, Callable[[TPGroup], Found]], scratch: Path, device: str
) -> None:
    torch.set_num_threads(1)
    if device == "cuda":
        torch.cuda.set_device(rank)
    # A file, not a port: another process cannot take it between choosing and using it.
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        init_method=f"file://{scratch / 'rendezvous'}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=60),
    )
    group = TPGroup(rank, size)
    found = {name: job(group) for name, job in jobs.items()}
    if rank == 0:
        torch.save(found, scratch / "found")
    group.barrier()
    group.close()
