"""KV is exact whatever the order in which streams get on, and a fault of that order shows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tests.worker_svc.simulated_cuda.device import CUDA
from tests.worker_svc.simulated_cuda.installed import simulated_cuda
from tests.worker_svc.simulated_cuda.kv_scene import LAYOUT, KvScene
from worker_svc.kv_tiers.copies import Copy
from worker_svc.kv_tiers.cuda_copies import CudaCopies, CudaCopy
from worker_svc.model.kv_cache import KVCache, LayerCache

pytestmark = pytest.mark.usefixtures("by_layers")
SEEDS = range(12)
STEPS = 40


def play(seed: int, *, follower: bool = False) -> KvScene:
    with simulated_cuda(seed):
        scene = KvScene(seed, follower=follower)
        scene.run(STEPS)
    return scene


@pytest.mark.parametrize(
    ("follower", "seeds"), [(False, range(6)), (True, SEEDS)], ids=["rank 0", "another rank"]
)
def test_random_transfers_are_exact(follower: bool, seeds: range) -> None:
    """With fetches that are read, waited for and cancelled, and blocks that change hands with a spill."""
    scenes = [play(seed, follower=follower) for seed in seeds]
    assert [scene.wrong for scene in scenes] == [[]] * len(seeds)
    assert sum(scene.failed for scene in scenes) == 0
    assert sum(scene.fetched for scene in scenes) > 15 * len(seeds)
    assert sum(scene.cancelled for scene in scenes) > 3 * len(seeds)
    assert sum(scene.moved for scene in scenes) > 12 * len(seeds)


def test_a_block_changes_hands_behind_the_copy_that_spills_it() -> None:
    """Rank 0 has settled that step; on this rank the copy is launched, and its stream is behind."""
    with simulated_cuda(2):  # nothing runs before it must
        assert KvScene(0, follower=True).give_away_behind_a_copy()


def fault_shows() -> bool:
    return any(play(seed).wrong for seed in SEEDS)


def test_a_step_that_does_not_wait_for_copies_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaCopy, "before_compute", lambda self: None)
    assert fault_shows()


def test_buffers_that_are_used_while_they_are_copied_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaCopy, "wait", lambda self: None)
    assert fault_shows()


def test_a_spill_that_does_not_wait_for_the_steps_before_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of blocks that a step has written that has not run: no plan asks for that, but ``mark`` allows it."""
    wrong = 0
    for seed in SEEDS:
        with simulated_cuda(seed):
            wrong += not KvScene(seed).spill_at_once()
    assert wrong == 0
    monkeypatch.setattr(CudaCopies, "mark", lambda self: None)
    for seed in SEEDS:
        with simulated_cuda(seed):
            wrong += not KvScene(seed).spill_at_once()
    assert wrong


def test_a_fetch_into_blocks_that_are_being_spilled_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    scatter = CudaCopies.scatter

    def hasty(
        self: CudaCopies, blocks: Sequence[int], layers: range, source: Tensor, after: Sequence[Copy] = ()
    ) -> Copy:
        return scatter(self, blocks, layers, source)

    monkeypatch.setattr(CudaCopies, "scatter", hasty)
    assert fault_shows()


def test_what_a_fetch_launches_does_not_depend_on_how_many_blocks_it_brings() -> None:
    with simulated_cuda(0) as device:
        scene = KvScene(0)
        found = []
        for blocks in (1, 1, 6):  # buffers are new at first: nothing waits for what was copied out of them
            before = device.calls()
            scene.bring(blocks)
            found.append(device.calls() - before)
        assert found[1] == found[2]
        assert found[1]["launch: index_copy_"] == 3  # one a layer: there are few
        assert not any(name.startswith("sync") for name in found[1])


def test_a_fetch_does_not_wait_for_compute_behind_a_piece_whose_buffer_is_in_use() -> None:
    """And the threads sleep while they wait: they leave the cores to the stages."""
    with simulated_cuda(2) as device:  # nothing runs before it must
        shape = LAYOUT.block_shape
        storage = torch.zeros(shape[0], shape[1], 4, *shape[2:], device=CUDA)
        cache = KVCache(tuple(LayerCache(keys, values) for keys, values in storage), storage)
        copies, ran = CudaCopies(cache), list[str]()
        piece = copies.buffer((1, *LAYOUT.part_shape), torch.float32)
        buffer = copies.device_buffer((2, 1, *LAYOUT.part_shape[1:]), torch.float32)
        device.launch("attention", lambda: ran.append("attention"))
        brought = copies.bring(piece, buffer, copies.mark())
        block = copies.buffer((1, *shape), torch.float32)
        fetched = copies.scatter([1], range(LAYOUT.layers), block)
        fetched.wait()
        assert not ran
        brought.wait()
        assert ran
        spilled = copies.gather([1], block, None)
        for copy in (brought, fetched, spilled):
            assert isinstance(copy, CudaCopy)
            assert copy._done.blocking  # type: ignore[attr-defined]
