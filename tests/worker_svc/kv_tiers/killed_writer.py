"""Kills processes that write to a disk tier, and looks at what they leave. Run by ``test_disk_killed``.

A process of its own: it forks, which a process with the threads of a test run should not. Prints for each
round how many frames the index says to hold a block, and how many of them are right.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from tests.worker_svc.kv_tiers.blocks import LAYOUT, blocks, key, same
from worker_svc.kv_tiers.disk import DiskTier

LARGE = replace(LAYOUT, row_width=512)  # 192 KiB a block: most of the time goes to writing
FRAMES, POOL = 24, 40


def opened(directory: Path) -> DiskTier:
    return DiskTier.open(directory, FRAMES * LARGE.block_bytes, LARGE)


def write_on(directory: Path, made: Tensor, seed: int, pipe: int) -> None:
    """Writes blocks that are known by their keys to random frames, in runs and apart, until it is killed.

    Writes to ``pipe`` when it has filled the tier.
    """
    tier, order = opened(directory), random.Random(seed)
    for turn in count():
        if turn == 50:
            os.write(pipe, b"!")
        frames = order.sample(range(FRAMES), 3) if turn % 2 else list(range(turn % 20, turn % 20 + 4))
        numbers = [order.randrange(POOL) for _ in frames]
        tier.write(frames, [key(number) for number in numbers], made[numbers])


def left(directory: Path) -> tuple[int, int]:
    """How many frames are said to hold a block, and how many do."""
    tier = opened(directory)
    held = tier.contents()
    keys = list(held.values())
    out = torch.empty((len(held), *LARGE.block_shape), dtype=LARGE.dtype)
    failed = tier.read(list(held), keys, range(LARGE.layers), out)
    tier.close()
    expected = blocks(*(int.from_bytes(each, "big") for each in keys), layout=LARGE)
    right = [i for i in range(len(held)) if i not in failed and same(out[i], expected[i])]
    return len(held), len(right)


def main(directory: Path, rounds: int) -> None:
    torch.set_num_threads(1)
    made = blocks(*range(POOL), layout=LARGE)
    reader, writer = os.pipe()
    for seed in range(rounds):
        child = os.fork()
        if not child:
            write_on(directory, made, seed, writer)
        os.read(reader, 1)
        time.sleep(random.Random(seed).uniform(0.0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print(*left(directory))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
