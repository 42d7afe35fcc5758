"""Runs two ranks on this machine, to check that torch.distributed works here."""

from __future__ import annotations

import os
import subprocess
import sys

from albireo.local.ports import free_port
from albireo.tools.doctor.finding import Finding, failure, ok

SECONDS = 60.0
"""For both to start, import torch, and finish."""

RANK = """
import torch
from worker_svc.collectives.tp_group import TPGroup
group = TPGroup.from_environment("cpu", timeout_seconds=20)
found = group.all_reduce(torch.full((8,), 1.0 + group.rank))
assert found.tolist() == [3.0] * 8, found
columns = group.exchange_columns(torch.full((2, 4), float(group.rank)), [1, 1], torch.float32)
assert columns.tolist() == [[0.0] * 4 + [1.0] * 4], columns
group.close()
"""


def check_two_ranks() -> Finding:
    """Starts two ranks over gloo and shared memory, and lets them reduce and exchange as the model does."""
    environment = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    environment["MASTER_PORT"] = str(free_port("127.0.0.1"))
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK],
            env={**environment, "RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [rank.communicate(timeout=SECONDS)[1] for rank in ranks]
    except subprocess.TimeoutExpired:
        return failure("two ranks", f"no answer in {SECONDS:.0f} s", ADVICE)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    for rank, errors in zip(ranks, outputs, strict=True):
        if rank.returncode:
            last = (errors.strip().splitlines() or [f"exit status {rank.returncode}"])[-1]
            return failure("two ranks", last, ADVICE)
    return ok("two ranks", "they connect over gloo on loopback, reduce and exchange")


ADVICE = (
    "gloo needs the loopback interface and a resolvable host name: set GLOO_SOCKET_IFNAME=lo, "
    "and let a container connect to itself"
)
