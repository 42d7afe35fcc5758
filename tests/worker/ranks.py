"""A tensor-parallel group of real processes over gloo that runs jobs and hands rank 0's outcomes back.

Imported by every rank: it must stay free of transformers, whose import takes seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from tests.worker.oracle import Ask, Outcome, Scenario, make_runner, run
from worker_svc.model.parallel import TPGroup


@dataclass(frozen=True)
class Job:
    """Requests to run on a checkpoint."""

    directory: Path
    scenario: Scenario
    asks: list[Ask]


def run_group(size: int, jobs: dict[str, Job], scratch: Path) -> dict[str, Outcome]:
    """Outcomes by the jobs' names. Raises what any rank raised."""
    spawn(_rank, args=(size, jobs, scratch), nprocs=size, daemon=True)  # a test that times out leaves none
    outcomes: dict[str, Outcome] = torch.load(scratch / "outcomes", weights_only=False)
    return outcomes


def _rank(rank: int, size: int, jobs: dict[str, Job], scratch: Path) -> None:
    torch.set_num_threads(1)
    # A file, not a port: nobody can take it between choosing and using it.
    dist.init_process_group(
        "gloo",
        init_method=f"file://{scratch / 'rendezvous'}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=60),
    )
    group = TPGroup(rank, size)
    outcomes = {
        name: run(make_runner(job.directory, group, job.scenario), group, job.scenario, job.asks)
        for name, job in jobs.items()
    }
    if rank == 0:
        torch.save(outcomes, scratch / "outcomes")
    group.barrier()
    group.close()
