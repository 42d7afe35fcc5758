"""KV transfers between blocks of a GPU and tiers, as on the simulated device."""

from __future__ import annotations

import pytest
import torch

from tests.worker_svc.cuda.scene import ids, in_turn
from tests.worker_svc.pipeline import overlapped
from tests.worker_svc.simulated_cuda.kv_scene import KvScene
from tests.worker_svc.simulated_cuda.test_kv_steps import SETTLED, make_runner, story

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("follower", [False, True], ids=["rank 0", "another rank"])
def test_random_transfers_are_exact(cuda: torch.device, follower: bool) -> None:
    for seed in range(20):
        scene = KvScene(seed, follower=follower)
        scene.run(200)
        assert (scene.wrong, scene.failed) == ([], 0)


@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["eager", "graphs"])
def test_steps_with_transfers_bring_the_same_ids(cuda: torch.device, cuda_graphs: bool) -> None:
    expected = ids(in_turn(make_runner(cuda, tiers=False), story(tiers=False)))
    runner = make_runner(cuda, tiers=True, cuda_graphs=cuda_graphs)
    for _ in range(5):
        found = overlapped(runner, story(tiers=True), SETTLED)
        assert [sampled[2] for sampled in found] == expected
    runner.close()
