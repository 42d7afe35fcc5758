"""CUDA graphs that draw bring what the same steps bring kernel by kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from albireo.contract.plan import SamplingParams
from tests.worker_svc.cuda.scene import amount
from tests.worker_svc.sampled import DRAWN, GREEDY, MIXED, Bench, Row, logits_of

SLOTS = 21
REQUESTS = {
    "greedy": [GREEDY],
    "plain": [DRAWN, GREEDY, replace(DRAWN, temperature=0.4)],
    "bounded": [replace(DRAWN, top_k=50, top_p=0.9), replace(DRAWN, top_k=4, min_p=0.1), GREEDY],
    "mixed": [*MIXED, GREEDY],
}


def sampled(device: torch.device, kinds: Sequence[SamplingParams], *, graphs: bool) -> list[dict[int, int]]:
    """Ids by slot, of steps of more and more rows, and then of few."""
    vocabulary = amount(5003, simulated=700)
    bench = Bench(vocabulary, slots=SLOTS, device=device, on_cpu=False, graphs=graphs)
    requests = [Row(replace(kinds[slot % len(kinds)], seed=slot)) for slot in range(SLOTS)]
    found = []
    for before, slots in pairwise([0, 1, 2, 5, SLOTS, SLOTS]):
        step = bench.admit(dict(enumerate(requests[before:slots], before)), decodes=before)
        found.append(step.ids(logits_of(1, vocabulary, seed=slots)[0]))
    last = bench.admit({}, released=range(3, SLOTS), decodes=3)
    return [*found, last.ids(logits_of(1, vocabulary)[0])]


@pytest.mark.parametrize("kind", REQUESTS)
def test_graphs_draw_what_kernels_draw(cuda: torch.device, kind: str) -> None:
    expected = sampled(cuda, REQUESTS[kind], graphs=False)
    assert sampled(cuda, REQUESTS[kind], graphs=True) == expected
