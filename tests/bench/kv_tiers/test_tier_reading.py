"""The speed at which a disk's tier brings a streamed context."""

from __future__ import annotations

import torch

from bench.kv_tiers.tier_reading import reading_speed
from worker_svc.kv_tiers.layout import KvLayout
from worker_svc.kv_tiers.streamed_frames import PIECE_BLOCKS


def test_all_layers_of_all_blocks_are_read_twice() -> None:
    layout = KvLayout(3, 2, 8, torch.float32, "test", tp=1, rank=0)
    speed = reading_speed(layout, 2 * PIECE_BLOCKS + 3)
    assert speed.disk > 0
    assert speed.cache > 0
