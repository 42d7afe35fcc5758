"""KV transfers between blocks of a GPU and tiers."""

from __future__ import annotations

import pytest
import torch

from tests.worker_svc.cuda.scene import amount, ids, in_turn
from tests.worker_svc.pipeline import overlapped
from tests.worker_svc.simulated_cuda.kv_scene import KvScene
from tests.worker_svc.simulated_cuda.test_kv_steps import SETTLED, make_runner, story


@pytest.mark.parametrize("follower", [False, True], ids=["rank 0", "another rank"])
def test_random_transfers_are_exact(cuda: torch.device, follower: bool) -> None:
    for seed in range(amount(20, simulated=3)):
        scene = KvScene(seed, follower=follower)
        scene.run(amount(200, simulated=60))
        assert (scene.wrong, scene.failed) == ([], 0)


@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["eager", "graphs"])
def test_steps_with_transfers_bring_the_same_ids(cuda: torch.device, cuda_graphs: bool) -> None:
    expected = ids(in_turn(make_runner(cuda, tiers=False), story(tiers=False)))
    runner = make_runner(cuda, tiers=True, cuda_graphs=cuda_graphs)
    for _ in range(amount(5, simulated=2)):
        found = overlapped(runner, story(tiers=True), SETTLED)
        assert [sampled[2] for sampled in found] == expected
    runner.close()
