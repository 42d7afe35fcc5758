"""What a CUDA graph draws, run without one: the ids that the same rows draw otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from albireo.contract.plan import SamplingParams
from tests.worker_svc.sampled import DRAWN, GREEDY, MIXED, Bench, Row, Staged, logits_of
from worker_svc.buffers.scratch import ScratchBuffer
from worker_svc.sampling.failed import FAILED
from worker_svc.sampling.graph_draws import draw
from worker_svc.sampling.inputs import Drawn

VOCABULARY = 700


def staged(requests: list[SamplingParams], *, graphs: bool) -> Staged:
    bench = Bench(VOCABULARY, slots=len(requests), on_cpu=False, graphs=graphs)
    return bench.admit({slot: Row(sampling) for slot, sampling in enumerate(requests)})


PLAIN = st.builds(
    lambda seed, temperature: replace(DRAWN, seed=seed, temperature=temperature),
    st.integers(0, 1 << 40),
    st.sampled_from([0.0, 0.3, 1.0, 1.7]),
)
BOUNDED = st.builds(
    lambda request, top_k, top_p, min_p: replace(request, top_k=top_k, top_p=top_p, min_p=min_p),
    PLAIN,
    st.sampled_from([1, 2, 40, 256]),
    st.sampled_from([0.1, 0.9, 1.0]),
    st.sampled_from([0.0, 0.02, 0.5]),
)


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(st.lists(PLAIN, min_size=1, max_size=11), st.lists(BOUNDED, min_size=1, max_size=11)),
    st.integers(0, 1 << 20),
    st.booleans(),
)
def test_a_graph_draws_what_its_rows_draw_otherwise(
    requests: list[SamplingParams], seed: int, ties: bool
) -> None:
    logits = logits_of(len(requests), VOCABULARY, seed)
    if ties:
        logits = logits.round()
    own, graph = staged(requests, graphs=False), staged(requests, graphs=True).params.graph
    expected = own.bench.sampler(logits.clone(), own.params, own.layout)[:, 0]
    assert graph is not None
    padding = torch.full((len(graph) - len(requests), VOCABULARY), torch.nan)
    found = draw(torch.cat([logits, padding]), graph, ScratchBuffer())
    assert torch.equal(found[: len(requests)], expected)


def test_rows_without_a_number_fail() -> None:
    for request in (GREEDY, DRAWN, replace(DRAWN, top_k=3)):
        graph = staged([request] * 3, graphs=True).params.graph
        assert graph is not None
        logits = logits_of(len(graph), VOCABULARY)
        logits[1, 600] = torch.nan
        logits[2] = -torch.inf
        first, *others = draw(logits, graph, ScratchBuffer())[:3].tolist()
        assert first >= 0
        assert others == [FAILED] * 2


@pytest.mark.parametrize(
    ("requests", "drawn"),
    [
        ([GREEDY], Drawn.GREEDY),
        ([GREEDY, DRAWN], Drawn.PLAIN),
        ([replace(DRAWN, top_k=256, top_p=0.5, min_p=0.1), GREEDY], Drawn.BOUNDED),
        # By all numbers, in two ways, by a control that a graph has not:
        ([GREEDY, replace(DRAWN, top_p=0.9)], None),
        ([replace(DRAWN, top_k=257)], None),
        ([DRAWN, replace(DRAWN, top_k=5)], None),
        ([replace(DRAWN, top_k=5, typical_p=0.5)], None),
        # Other columns, or single logits that change:
        ([GREEDY, replace(GREEDY, logprobs=0)], None),
        ([replace(GREEDY, bad_ids=(3,))], None),
        ([replace(GREEDY, allowed_ids=(3,))], None),
        ([replace(GREEDY, logit_bias=((3, 1.0),))], None),
        ([replace(GREEDY, min_tokens=2, stop_ids=(3,))], None),
        ([GREEDY, replace(DRAWN, repetition_penalty=1.1)], None),
        (MIXED, None),
    ],
)
def test_which_steps_a_graph_draws(requests: list[SamplingParams], drawn: Drawn | None) -> None:
    params = staged(requests, graphs=True).params
    assert (None if params.graph is None else params.graph.drawn) == drawn
    if params.graph is not None:
        assert not len(params.greedy)
        assert params.plain is params.narrow is params.bounded is params.wide is None


def test_a_cpu_draws_without_graphs() -> None:
    assert Bench(VOCABULARY, slots=1).admit({0: Row(GREEDY)}).params.graph is None
