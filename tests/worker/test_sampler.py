"""From logits to ids: transformers' own controls are the measure, with uniforms that cover [0, 1) evenly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from albireo.plan import Admission, Chunk, Grant, GroupShape, Plan, SamplingParams
from worker_svc.sampler import FAILED, TOP_P_CANDIDATES, SampledLogprobs, SamplingTensors, sample
from worker_svc.slot_table import SlotTable
from worker_svc.staging import Staging

VOCAB = 60
DRAWN = SamplingParams(max_tokens=100, seed=0)
GREEDY = replace(DRAWN, temperature=0.0)


def staged(requests: list[SamplingParams], eos_ids: frozenset[int] = frozenset()) -> SamplingTensors:
    """The sampler's input for one first token of each request, by the way that it takes in a worker."""
    table = SlotTable(GroupShape(len(requests), len(requests), 16), eos_ids)
    plan = Plan(
        1,
        1,
        admissions=tuple(Admission(s, s, str(s), (1,), 0, 0, request) for s, request in enumerate(requests)),
        grants=tuple(Grant(s, (s,)) for s in range(len(requests))),
        chunks=tuple(Chunk(s, 0, 1) for s in range(len(requests))),
    )
    return Staging(torch.device("cpu"), torch.float32, 16).stage(table.apply(plan)).sampling


def logits_of(rows: int, vocabulary: int = VOCAB, seed: int = 0) -> Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 2


def draw(logits: Tensor, requests: list[SamplingParams]) -> list[int]:
    return sample(logits.clone(), staged(requests))[0].tolist()


def shares(logits: Tensor, request: SamplingParams, draws: int) -> Tensor:
    """How often each id comes out for one row of logits, over evenly spread uniforms."""
    uniforms = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    params = replace(staged([request] * draws), uniforms=uniforms)
    ids, _ = sample(logits.repeat(draws, 1), params)
    return torch.bincount(ids, minlength=len(logits)) / draws


def warped(logits: Tensor, request: SamplingParams) -> Tensor:
    """The distribution that transformers would draw from."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(request.temperature)])
    if request.top_k:
        warpers.append(TopKLogitsWarper(request.top_k))
    if request.top_p < 1:
        warpers.append(TopPLogitsWarper(request.top_p))
    if request.min_p:
        warpers.append(MinPLogitsWarper(request.min_p))
    no_ids = torch.LongTensor(1, 0)
    found: Tensor = warpers(no_ids, torch.FloatTensor(logits[None].tolist()))[0]
    return found.softmax(-1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [0, 1, 7, 1000])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.35, 1e-6])
@pytest.mark.parametrize("min_p", [0.0, 0.2, 1.0])
def test_distribution(temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    request = replace(DRAWN, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    logits = logits_of(1)[0]
    expected = warped(logits, request)
    draws = 2000
    # Each id owns one interval of [0, 1): the even uniforms inside it are right to one.
    found = shares(logits, request, draws)
    torch.testing.assert_close(found, expected, atol=1.01 / draws, rtol=0)
    assert not found[expected == 0].any()


@pytest.mark.parametrize("top_p", [0.5, 0.97])
def test_a_nucleus_larger_than_the_first_candidates(top_p: float) -> None:
    vocabulary = 3 * TOP_P_CANDIDATES
    logits = logits_of(1, vocabulary)[0] / 20
    request = replace(DRAWN, top_p=top_p)
    expected = warped(logits, request)
    assert int((expected > 0).sum()) > TOP_P_CANDIDATES
    found = shares(logits, request, 5000)
    torch.testing.assert_close(found, expected, atol=1.01 / 5000, rtol=0)
    assert not found[expected == 0].any()


def test_chi_square_over_seeds() -> None:
    """The same with real seeds instead of even uniforms: one request each."""
    logits = logits_of(1, 12)[0] / 2
    draws = 5000
    ids, _ = sample(logits.repeat(draws, 1), staged([replace(DRAWN, seed=s) for s in range(draws)]))
    expected = logits.softmax(-1) * draws
    found = torch.bincount(ids, minlength=12)
    # 11 degrees of freedom: one in 10 000 of fair samples is above 37.4.
    assert float(((found - expected) ** 2 / expected).sum()) < 37.4


def test_equal_logits_at_the_threshold_are_all_kept() -> None:
    logits = torch.tensor([3.0, 1.0, 2.0, 2.0, 0.0])
    found = shares(logits, replace(DRAWN, top_k=2), 1000)
    assert (found > 0).tolist() == [True, False, True, True, False]
    assert float(found[2]) == pytest.approx(float(found[3]), abs=2e-3)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
@pytest.mark.parametrize("best", [0, 3, 6])
def test_the_ends_of_the_range_draw_no_excluded_id(uniform: float, best: int) -> None:
    logits = torch.zeros(1, 7)
    logits[0, best] = 1.0
    params = replace(staged([replace(DRAWN, top_k=1)]), uniforms=torch.tensor([uniform], dtype=torch.float64))
    assert sample(logits, params)[0].tolist() == [best]


def test_rows_do_not_see_each_other() -> None:
    requests = [
        GREEDY,
        replace(DRAWN, seed=1),
        replace(DRAWN, seed=2, top_k=3),
        replace(DRAWN, seed=3, top_p=0.6),
        replace(DRAWN, seed=4, min_p=0.3, temperature=2.0),
        replace(DRAWN, seed=5, top_k=40, top_p=0.9, min_p=0.01),
        GREEDY,
    ]
    for trial in range(20):
        logits = logits_of(len(requests), seed=trial)
        requests = [replace(request, seed=request.seed + 100) for request in requests]
        alone = [draw(row[None], [request])[0] for row, request in zip(logits, requests, strict=True)]
        assert draw(logits, requests) == alone
        assert alone[0] == int(logits[0].argmax())
        order = torch.randperm(len(requests), generator=torch.Generator().manual_seed(trial)).tolist()
        assert draw(logits[order], [requests[i] for i in order]) == [alone[i] for i in order]


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "bad", [GREEDY, DRAWN, replace(DRAWN, top_k=5), replace(DRAWN, top_p=0.5), replace(DRAWN, min_p=0.1)]
)
def test_a_row_without_numbers_fails_alone(poison: float, bad: SamplingParams) -> None:
    others = [GREEDY, replace(DRAWN, top_k=9, top_p=0.8, min_p=0.05)]
    logits = logits_of(2)
    expected = draw(logits, others)
    spoiled = torch.cat([logits[:1], torch.full((1, VOCAB), poison), logits[1:]])
    assert draw(spoiled, [others[0], bad, others[1]]) == [expected[0], FAILED, expected[1]]


@pytest.mark.parametrize("request_", [GREEDY, DRAWN, replace(DRAWN, top_p=0.5)])
def test_one_nan_is_enough(request_: SamplingParams) -> None:
    logits = logits_of(1)
    logits[0, 17] = float("nan")
    assert draw(logits, [request_]) == [FAILED]


def test_end_tokens_are_masked_below_min_tokens() -> None:
    logits = logits_of(1).repeat(4, 1)
    logits[:, 3], logits[:, 4], logits[:, 5] = 50.0, 40.0, 30.0
    requests = [
        replace(GREEDY, min_tokens=1),
        replace(GREEDY, min_tokens=1, stop_ids=(4,)),
        replace(GREEDY, min_tokens=1, ignore_eos=True, stop_ids=(4,)),
        GREEDY,
    ]
    ids, _ = sample(logits, staged(requests, frozenset({3})))
    assert ids.tolist() == [4, 5, 3, 3]


def test_nothing_left_to_draw_fails() -> None:
    request = replace(DRAWN, min_tokens=1, stop_ids=tuple(range(5)))
    ids, _ = sample(logits_of(1, 5), staged([request]))
    assert ids.tolist() == [FAILED]


def test_logprobs_are_of_the_raw_distribution() -> None:
    requests = [
        replace(GREEDY, logprobs=2),
        DRAWN,
        replace(DRAWN, seed=9, temperature=0.5, top_k=2, logprobs=5),
        replace(GREEDY, logprobs=0),
    ]
    logits = logits_of(4)
    ids, found = sample(logits.clone(), staged(requests))
    assert isinstance(found, SampledLogprobs)
    wanted = [0, 2, 3]
    expected = logits[wanted].log_softmax(-1)
    torch.testing.assert_close(found.chosen, expected[range(3), ids[wanted]])
    top, top_ids = expected.topk(5)
    torch.testing.assert_close(found.top, top)
    assert torch.equal(found.top_ids, top_ids)


def test_masked_tokens_keep_their_logprobs() -> None:
    """What the model said does not change with what is allowed to be drawn."""
    logits = logits_of(1)
    best = int(logits.argmax())
    request = replace(GREEDY, min_tokens=1, stop_ids=(best,), logprobs=1)
    ids, found = sample(logits.clone(), staged([request]))
    assert found is not None
    assert found.top_ids.tolist() == [[best]]
    assert ids.item() != best
    torch.testing.assert_close(found.chosen, logits.log_softmax(-1)[0, ids])


def test_no_logprobs_unless_wanted() -> None:
    assert sample(logits_of(1), staged([GREEDY]))[1] is None
