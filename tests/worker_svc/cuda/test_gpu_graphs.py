"""Decode steps as CUDA graphs bring what the same steps bring kernel by kernel."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from albireo.contract.plan import Plan, SamplingParams
from tests.worker_svc.cuda.scene import GREEDY, MIXED, SLOTS, Tap, ids, in_turn, make_runner, staggered
from worker_svc.runner.model_runner import ModelRunner


def test_logits_while_batch_and_context_grow_and_shrink(
    cuda: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphed, eager = make_runner(cuda), make_runner(cuda, cuda_graphs=False)
    taps = [Tap(runner, monkeypatch) for runner in (graphed, eager)]
    padded, used = 0, set[int]()
    for plan in staggered(SLOTS, 70, whole=True):
        batch = graphed.prepare(plan)
        if batch.forward_words is not None:
            rows = len(batch.input.forward.decode_slots)
            used.add(rows)
            padded += rows > len(batch.host.samples.slots)
        graphed.execute(batch)
        eager.execute(eager.prepare(plan))
        torch.testing.assert_close(taps[0].logits, taps[1].logits, atol=1e-4, rtol=1e-4)
        graphed._last_token.copy_(eager._last_token)  # near ties must not part the two
    assert used == {1, 2, 4, 8, 16, SLOTS}
    assert padded > 20
    assert not graphed._cache.storage[:, :, graphed.shape.num_blocks].any()
    assert graphed._last_token[SLOTS] == 0


@pytest.mark.parametrize("synchronous", [False, True])
@pytest.mark.parametrize("sampling", [(GREEDY,), MIXED], ids=["greedy", "mixed"])
def test_same_ids(cuda: torch.device, sampling: Sequence[SamplingParams], synchronous: bool) -> None:
    plans = list(staggered(6, 64, sampling))
    expected = ids(in_turn(make_runner(cuda, cuda_graphs=False), plans))
    runner = make_runner(cuda, synchronous=synchronous)
    assert _run(runner, plans, synchronous) == expected
    assert _run(runner, plans, synchronous) == expected


def _run(runner: ModelRunner, plans: list[Plan], synchronous: bool) -> list[list[int]]:
    if not synchronous:
        return ids(in_turn(runner, plans))
    runner.reset()
    outputs = []
    for plan in plans:
        outputs.append(runner.execute(runner.prepare(plan)).to_host())
        runner.feed_back(outputs[-1])
    return ids(outputs)


def test_graphs_survive_pressure_on_memory(cuda: torch.device) -> None:
    """A graph that refers to memory outside its pool would read what others have written there since."""
    runner, plans = make_runner(cuda), list(staggered(6, 40))
    expected = ids(in_turn(runner, plans))
    runner.reset()
    found = []
    for plan in plans:
        torch.cuda.empty_cache()
        rubbish = [torch.full((1 << 20,), float("nan"), device=cuda) for _ in range(8)]
        found.append(runner.execute(runner.prepare(plan)).to_host().ids.tolist())
        del rubbish
    assert found == expected


def test_bf16_runs_as_graphs(cuda: torch.device) -> None:
    runner, plans = make_runner(cuda, dtype=torch.bfloat16), list(staggered(6, 40))
    assert runner._graphs is not None
    first = ids(in_turn(runner, plans))
    assert ids(in_turn(runner, plans)) == first
