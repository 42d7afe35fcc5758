"""Jobs of the ranks of a group (``tests/worker_svc/ranks.py``) on simulated devices.

Imported by every rank: it must stay free of transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tests.worker_svc.simulated_cuda.installed import simulated_cuda
from worker_svc.collectives.tp_group import TPGroup

Found = TypeVar("Found")


@dataclass(frozen=True)
class OnSimulated(Generic[Found]):
    """A job for which each rank has a simulated device, under a seed of its own."""

    job: Callable[[TPGroup], Found]
    seed: int

    def __call__(self, group: TPGroup) -> Found:
        with simulated_cuda(self.seed + group.rank):
            return self.job(TPGroup(group.rank, group.size))
