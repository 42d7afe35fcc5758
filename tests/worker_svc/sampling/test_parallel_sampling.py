"""One batch, sampled by 1, 2 and 4 ranks, in parallel and by the driver: the same ids, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from albireo.contract.plan import SamplingParams
from tests.worker_svc.ranks import run_group
from tests.worker_svc.sampled import DRAWN, GREEDY, Bench, Row, Staged, logits_of
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.sampling.layout import PARALLEL_ROWS, SamplingMode

VOCAB = 5003  # prime: the last rank's columns are padded
SLOTS = 24


def requests() -> dict[int, Row]:
    """One of each kind, in slots that leave some ranks with more than others."""
    kinds: list[SamplingParams] = [
        GREEDY,
        replace(DRAWN, seed=1, top_k=20, logprobs=3),
        replace(DRAWN, seed=2, top_p=0.9, repetition_penalty=1.2),
        replace(DRAWN, seed=3, min_p=0.05, temperature=1.7, presence_penalty=0.7),
        replace(DRAWN, seed=4, typical_p=0.8, frequency_penalty=0.4, logprobs=0),
        replace(DRAWN, seed=5, logit_bias=((17, 9.0), (4000, 8.0))),
        replace(GREEDY, repetition_penalty=1.5, bad_ids=tuple(range(100, 400))),
        replace(DRAWN, seed=6, allowed_ids=tuple(range(0, VOCAB, 9)), top_k=300),
        replace(DRAWN, seed=7, min_tokens=5, stop_ids=(1, 2, 3)),
    ]
    slots = [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 16, 17, 18, 20, 21, 22]
    return {
        slot: Row(replace(kinds[i % len(kinds)], seed=100 + slot), tuple(range(slot, slot + 9)))
        for i, slot in enumerate(slots)
    }


@dataclass(frozen=True)
class Batch:
    """Requests that come, decode, leave and come again, on made-up logits; what rank 0 sampled, by step."""

    mode: SamplingMode
    apart: bool = False  # as if the ranks were on different machines
    on_cpu: bool = True  # or drawn as on CUDA

    def __call__(self, group: TPGroup) -> list[dict[int, list[int]]]:
        if self.apart:
            group = TPGroup(group.rank, group.size)
            group._asked = True
        bench = Bench(VOCAB, slots=SLOTS, group=group, mode=self.mode, on_cpu=self.on_cpu)
        rows, found = requests(), []
        few = dict(list(rows.items())[:3])
        rest = {slot: row for slot, row in rows.items() if slot not in few}
        steps: list[Callable[[], Staged]] = [
            lambda: bench.admit(few),  # fewer than are sampled in parallel
            lambda: bench.decode(len(few)),
            lambda: bench.admit(rest, decodes=len(few)),
            *[lambda: bench.decode(len(rows))] * 6,
            # All of a slot's rank leave, and one comes back.
            lambda: bench.admit({1: rows[1]}, released=(1, 5, 9), decodes=len(rows) - 3),
            *[lambda: bench.decode(len(rows) - 2)] * 3,
        ]
        for number, stage in enumerate(steps):
            step = stage()
            logits = dict(enumerate(logits_of(SLOTS, VOCAB, seed=number)))
            logits[8][5] = torch.nan if number == 7 else 0.0
            words = step.words(logits)
            found.append(dict(zip(step.slots, words.tolist(), strict=True)))
        return found


@pytest.fixture(scope="module")
def alone() -> list[dict[int, list[int]]]:
    return Batch("auto")(TPGroup())


@pytest.fixture(scope="module", params=[2, 4])
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[int, list[int]]]]:
    jobs = {mode: Batch(mode) for mode in ("auto", "parallel", "driver")}
    jobs |= {"parallel, apart": Batch("parallel", apart=True), "driver, apart": Batch("driver", apart=True)}
    jobs["parallel, as on CUDA"] = Batch("parallel", on_cpu=False)
    return run_group(request.param, jobs, Path(tmp_path_factory.mktemp("sampling")))


@pytest.mark.parametrize(
    "mode", ["auto", "parallel", "driver", "parallel, apart", "driver, apart", "parallel, as on CUDA"]
)
def test_any_number_of_ranks_brings_the_same(
    alone: list[dict[int, list[int]]], shared: dict[str, list[dict[int, list[int]]]], mode: str
) -> None:
    assert len(requests()) >= PARALLEL_ROWS > 3
    assert shared[mode] == alone
    assert any(words[0] == -1 for words in alone[7].values())
    assert all(words[0] >= 0 for words in alone[8].values())


def test_any_batch_brings_the_same(alone: list[dict[int, list[int]]]) -> None:
    """Each request in a slot of its own, by itself: its first ids."""
    for slot, row in requests().items():
        steps = [step for step in range(9) if slot in alone[step]]
        bench = Bench(VOCAB, slots=SLOTS)
        for step in steps:
            staged = bench.admit({slot: row}) if step == steps[0] else bench.decode(1)
            logits = logits_of(SLOTS, VOCAB, seed=step)[slot]
            if slot == 8:
                logits[5] = torch.nan if step == 7 else 0.0
            assert staged.ids(logits)[slot] == alone[step][slot][0]
