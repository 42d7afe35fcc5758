"""Measures all-reduces among the ranks of one machine, by the collectives that a group uses.

The calibration starts the ranks, each by ``python -m`` of this module; rank 0 prints what it measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import numpy as np
import torch

from albireo.local.ports import free_port
from albireo.planning.calibration.least_squares import fit
from worker_svc.collectives.tp_group import TPGroup, compute_threads

ROWS = (1, 4, 16, 64, 256, 1024)
"""Rows of hidden states that one all-reduce sums."""
CALLS, BATCHES = 20, 7
SECONDS = 120.0
"""For the ranks to start, import torch, and finish."""


def measure_all_reduce(device: str, tp: int, hidden: int) -> tuple[float, float]:
    """Latency in seconds, and bytes per second that a rank sends.

    A ring's all-reduce of n bytes sends 2 (t - 1) / t n from each rank (Thakur et al., 2005). Raises
    RuntimeError where the ranks do not finish.
    """
    found = np.array(json.loads(_run_ranks(device, tp, hidden)))
    sent = 2 * (tp - 1) / tp * found[:, 0]
    latency, gigabytes = fit(
        lambda values: values[0] * 1e-6 + sent / (values[1] * 1e9),
        found[:, 1],
        np.ones(len(found)),
        np.array([20.0, 10.0]),
        lowest=np.array([1e-2, 1e-3]),
        highest=np.array([1e6, 1e5]),
    )
    return float(latency) * 1e-6, float(gigabytes) * 1e9


def _run_ranks(device: str, tp: int, hidden: int) -> str:
    """What rank 0 prints."""
    environment = {**os.environ, "WORLD_SIZE": str(tp), "MASTER_ADDR": "127.0.0.1"}
    environment["MASTER_PORT"] = str(free_port("127.0.0.1"))
    command = [sys.executable, "-m", __name__, device, str(hidden)]
    ranks = [
        subprocess.Popen(
            command,
            env={**environment, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(tp)
    ]
    try:
        outputs = [rank.communicate(timeout=SECONDS) for rank in ranks]
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{tp} ranks have not finished their all-reduces in {SECONDS:.0f} s") from None
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    for rank, (_, errors) in zip(ranks, outputs, strict=True):
        if rank.returncode:
            raise RuntimeError((errors.strip().splitlines() or [f"a rank ended with {rank.returncode}"])[-1])
    return outputs[0][0]


def run_rank(kind: str, hidden: int) -> list[tuple[int, float]]:
    """Bytes of each all-reduce, and its seconds: the median of several batches of calls."""
    group = TPGroup.from_environment(kind, timeout_seconds=SECONDS)
    device = torch.device("cuda", group.rank) if kind == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.set_num_threads(compute_threads(group.size))
    found = []
    for rows in ROWS:
        x = torch.zeros(rows, hidden, dtype=torch.bfloat16, device=device)
        seconds = [_seconds(group, x) for _ in range(BATCHES)]
        found.append((x.numel() * x.element_size(), float(np.median(seconds))))
    group.close()
    return found


def _seconds(group: TPGroup, x: torch.Tensor) -> float:
    group.all_reduce(x)  # the ranks begin together
    _await(x)
    began = time.perf_counter()
    for _ in range(CALLS):
        group.all_reduce(x)
    _await(x)
    return (time.perf_counter() - began) / CALLS


def _await(x: torch.Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize()


if __name__ == "__main__":
    measured = run_rank(sys.argv[1], int(sys.argv[2]))
    if os.environ["RANK"] == "0":
        print(json.dumps(measured))
