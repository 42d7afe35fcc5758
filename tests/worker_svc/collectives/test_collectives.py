"""Collectives of a group on one machine, by shared memory, and of one that is not."""

from __future__ import annotations

import ctypes
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.worker_svc.ranks import run_group
from worker_svc.collectives.local_ranks import LocalRanks
from worker_svc.collectives.tp_group import TPGroup

CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Calls:
    """A mix of all collectives, of sizes that grow and shrink; what rank 0 got."""

    apart: bool = False  # as if the ranks were on different machines
    device: str = "cpu"

    def __call__(self, group: TPGroup) -> list[tuple[Tensor, ...]]:
        if self.apart:
            group = TPGroup(group.rank, group.size)
            group._asked = True
        found = []
        for number, width in enumerate((3, 40_000, 7, 300_000, 1)):
            draw = torch.Generator().manual_seed(number)
            whole = torch.randint(-99, 99, (group.size, 5, width), generator=draw)
            own = whole[group.rank].to(self.device)
            reduced = [group.all_reduce(own.to(dtype)) for dtype in (torch.float32, torch.bfloat16)]
            counts = [(5, *[0] * (group.size - 1)), (0, *[1] * (group.size - 2), 7 - group.size)][number % 2]
            columns = group.exchange_columns(own.float(), counts, torch.float64)
            first = sum(counts[: group.rank])
            expected = torch.cat([part[first : first + counts[group.rank]] for part in whole], dim=1)
            assert torch.equal(columns.cpu(), expected.double())
            rows = group.gather_rows(own[: counts[group.rank]].contiguous(), counts)
            reduced, rows = [x.cpu() for x in reduced], rows.cpu()
            found.append((*reduced, rows))
            assert torch.equal(reduced[0], whole.sum(0).float())
            assert torch.equal(
                rows, torch.cat([part[:count] for part, count in zip(whole, counts, strict=True)])
            )
        return found


@pytest.mark.parametrize("size", [2, 3, 4])
def test_shared_memory_and_sockets_give_the_same(size: int, tmp_path: Path) -> None:
    found = run_group(size, {"near": Calls(), "apart": Calls(apart=True)}, tmp_path)
    for near, apart in zip(found["near"], found["apart"], strict=True):
        for ours, theirs in zip(near, apart, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0.02, atol=1)  # bf16 sums round in their own order


@dataclass(frozen=True)
class Left:
    """The last rank goes while the others wait for it; or it is only late."""

    dies: bool

    def __call__(self, group: TPGroup) -> tuple[str, float]:
        ranks = LocalRanks.find(group.rank, group.size, timeout_seconds=20 if self.dies else 0.5)
        assert ranks is not None
        ranks.barrier()
        found = self._found(group, ranks)
        group.barrier()  # a rank that has seen it must not be gone itself before the others look
        ranks.close()
        return found

    def _found(self, group: TPGroup, ranks: LocalRanks) -> tuple[str, float]:
        began = time.monotonic()
        if group.rank == group.size - 1:
            if self.dies:
                ranks.close()
            return "", 0.0  # it comes to the barrier when the others have given it up
        try:
            ranks.barrier()
        except RuntimeError as error:
            return str(error), time.monotonic() - began
        return "met", 0.0


@pytest.mark.parametrize("dies", [True, False])
def test_a_rank_that_is_gone_or_late_is_named(dies: bool, tmp_path: Path) -> None:
    message, seconds = run_group(3, {"left": Left(dies)}, tmp_path)["left"]
    assert message == "rank 2 does not answer the other ranks of its machine"
    assert seconds < 5


@dataclass(frozen=True)
class Far:
    """One rank in a network of its own, where the others' names mean nothing, as on another machine."""

    def __call__(self, group: TPGroup) -> bool:
        if group.rank == 1:
            assert ctypes.CDLL(None).unshare(CLONE_NEWNET) == 0
        return LocalRanks.find(group.rank, group.size, timeout_seconds=5) is None


def test_a_rank_on_another_machine_is_no_local_rank(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to make a network namespace")
    assert run_group(2, {"far": Far()}, tmp_path)["far"] is True
