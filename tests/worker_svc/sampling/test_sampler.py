"""From logits to ids: draws follow the distribution, and rows do not see each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from albireo.contract.plan import SamplingParams
from tests.worker_svc.sampled import DRAWN, GREEDY, MIXED, Row, draw, logits_of, staged, weights
from worker_svc.sampling.failed import FAILED
from worker_svc.sampling.inputs import SamplingInput
from worker_svc.sampling.logprobs import to_messages

VOCAB = 60
LARGE = 5003


def with_uniforms(params: SamplingInput[Tensor], uniforms: Tensor) -> SamplingInput[Tensor]:
    """The same rows with other random numbers."""
    [name] = [
        name for name in ("native", "plain", "narrow", "bounded", "wide") if getattr(params, name) is not None
    ]
    return replace(params, **{name: replace(getattr(params, name), uniforms=uniforms)})


def drawn_with(logits: Tensor, request: SamplingParams, uniforms: Tensor) -> Tensor:
    """Ids of one row of logits, drawn with each of the uniforms."""
    step = staged([request] * len(uniforms), len(logits))
    repeated = logits.repeat(len(uniforms), 1)
    return step.bench.sampler(repeated, with_uniforms(step.params, uniforms), step.layout)[:, 0]


@pytest.mark.parametrize(
    "request_",
    [
        DRAWN,
        replace(DRAWN, temperature=0.3),
        replace(DRAWN, top_k=7),
        replace(DRAWN, top_p=0.8),
        replace(DRAWN, min_p=0.1, temperature=1.4),
        replace(DRAWN, typical_p=0.7),
        replace(DRAWN, top_k=400, top_p=0.95, min_p=0.01, typical_p=0.9),
    ],
)
@pytest.mark.parametrize("vocabulary", [VOCAB, LARGE])
def test_each_id_owns_an_interval_in_the_order_of_ids(request_: SamplingParams, vocabulary: int) -> None:
    logits, draws = logits_of(1, vocabulary)[0], 1000
    uniforms = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    ids = drawn_with(logits, request_, uniforms)
    assert torch.equal(ids, ids.sort().values)
    share = torch.bincount(ids, minlength=vocabulary) / draws
    # The even uniforms inside an interval are right to one.
    torch.testing.assert_close(share.double(), weights(logits, Row(request_)), atol=1.01 / draws, rtol=0)


@pytest.mark.parametrize("request_", [DRAWN, replace(DRAWN, top_k=8), replace(DRAWN, typical_p=0.6)])
def test_chi_square_over_seeds(request_: SamplingParams) -> None:
    """With real seeds instead of even uniforms: one request each."""
    logits, draws = logits_of(1, 12)[0] / 2, 5000
    share = weights(logits, Row(request_))
    ids = draw(logits.repeat(draws, 1), [replace(request_, seed=seed) for seed in range(draws)])
    found = torch.bincount(torch.tensor(ids), minlength=12)
    assert not found[share == 0].any()
    found, expected = found[share > 0], share[share > 0] * draws
    # Up to 11 degrees of freedom: one in 10 000 of fair samples is above 37.4.
    assert float(((found - expected) ** 2 / expected).sum()) < 37.4


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
@pytest.mark.parametrize("best", [0, 3, 6])
def test_the_ends_of_the_range_draw_no_excluded_id(uniform: float, best: int) -> None:
    logits = torch.zeros(7)
    logits[best] = 1.0
    uniforms = torch.tensor([uniform], dtype=torch.float64)
    assert drawn_with(logits, replace(DRAWN, top_k=1), uniforms).tolist() == [best]


@pytest.mark.parametrize("vocabulary", [VOCAB, LARGE])
def test_rows_do_not_see_each_other(vocabulary: int) -> None:
    requests = [
        GREEDY,
        replace(DRAWN, seed=1),
        replace(DRAWN, seed=2, top_k=3),
        replace(DRAWN, seed=3, top_p=0.6),
        replace(DRAWN, seed=4, min_p=0.3, temperature=2.0),
        replace(DRAWN, seed=5, top_k=200, top_p=0.9, min_p=0.01),
        replace(DRAWN, seed=6, typical_p=0.7, logit_bias=((3, 4.0),)),
        replace(GREEDY, bad_ids=tuple(range(0, vocabulary, 2))),
        replace(DRAWN, seed=7, top_k=300, temperature=1.5),
        replace(DRAWN, seed=8, top_p=0.99, temperature=3.0),
        replace(DRAWN, seed=9, allowed_ids=(1, 2, 3), repetition_penalty=1.5),
        GREEDY,
    ]
    for trial in range(10):
        logits = logits_of(len(requests), vocabulary, seed=trial)
        requests = [replace(request, seed=request.seed + 100) for request in requests]
        alone = [draw(row[None], [request])[0] for row, request in zip(logits, requests, strict=True)]
        assert draw(logits, requests) == alone
        assert alone[0] == int(logits[0].argmax())
        order = torch.randperm(len(requests), generator=torch.Generator().manual_seed(trial)).tolist()
        assert draw(logits[order], [requests[i] for i in order]) == [alone[i] for i in order]


@pytest.mark.parametrize("vocabulary", [VOCAB, LARGE])
def test_a_device_that_is_not_waited_for_samples_what_a_cpu_samples(vocabulary: int) -> None:
    logits = logits_of(len(MIXED), vocabulary)
    logits[::2] = logits[::2].round()  # of which many are equal
    ways = [staged(MIXED, vocabulary, on_cpu=on_cpu) for on_cpu in (True, False)]
    assert ways[0].params.narrow is not None
    assert ways[0].params.bounded is None
    assert ways[1].params.narrow is None
    assert ways[1].params.bounded is not None
    words = [step.bench.sampler(logits.clone(), step.params, step.layout) for step in ways]
    assert torch.equal(*words)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_matter(threads: int) -> None:
    requests = [replace(DRAWN, seed=seed, top_p=0.5 + seed / 64) for seed in range(32)]
    logits = logits_of(32, 40_000, scale=1.5)
    before = torch.get_num_threads()
    expected = draw(logits, requests)
    torch.set_num_threads(threads)
    try:
        assert draw(logits, requests) == expected
    finally:
        torch.set_num_threads(before)


BAD = [
    GREEDY,
    DRAWN,
    replace(DRAWN, top_k=5),
    replace(DRAWN, top_p=0.5),
    replace(DRAWN, min_p=0.1),
    replace(DRAWN, typical_p=0.5),
    replace(DRAWN, repetition_penalty=2.0, frequency_penalty=1.0),
]


@pytest.mark.parametrize("vocabulary", [VOCAB, LARGE])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("bad", BAD)
def test_a_row_without_numbers_fails_alone(poison: float, bad: SamplingParams, vocabulary: int) -> None:
    others = [GREEDY, replace(DRAWN, top_k=9, top_p=0.8, min_p=0.05)]
    logits = logits_of(2, vocabulary)
    expected = draw(logits, others)
    spoiled = torch.cat([logits[:1], torch.full((1, vocabulary), poison), logits[1:]])
    assert draw(spoiled, [others[0], bad, others[1]]) == [expected[0], FAILED, expected[1]]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_one_is_enough(bad: SamplingParams, poison: float) -> None:
    logits = logits_of(1, LARGE)
    logits[0, LARGE - 2] = poison
    assert draw(logits, [bad]) == [FAILED]


@pytest.mark.parametrize("request_", [GREEDY, DRAWN, replace(DRAWN, top_k=3)])
def test_nothing_left_to_draw_fails(request_: SamplingParams) -> None:
    contradictory = replace(request_, allowed_ids=(3, 4), bad_ids=(3, 4))
    assert draw(logits_of(1, VOCAB), [contradictory]) == [FAILED]


def test_the_lowest_of_equal_ids_is_the_greedy_one() -> None:
    logits = torch.zeros(1, LARGE)
    logits[0, [4000, 700, 701]] = 1.0
    assert draw(logits, [GREEDY]) == [700]
    assert draw(torch.zeros(1, VOCAB), [GREEDY]) == [0]
    last = torch.zeros(1, LARGE)
    last[0, LARGE - 1] = 1.0
    assert draw(last, [GREEDY]) == [LARGE - 1]


def test_end_tokens_are_masked_below_min_tokens() -> None:
    logits = logits_of(1, VOCAB).repeat(4, 1)
    logits[:, 3], logits[:, 4], logits[:, 5] = 50.0, 40.0, 30.0
    requests = [
        replace(GREEDY, min_tokens=1),
        replace(GREEDY, min_tokens=1, stop_ids=(4,)),
        replace(GREEDY, min_tokens=1, ignore_eos=True, stop_ids=(4,)),
        GREEDY,
    ]
    step = staged(requests, VOCAB, frozenset({3}))
    assert step.bench.sampler(logits, step.params, step.layout)[:, 0].tolist() == [4, 5, 3, 3]


@pytest.mark.parametrize("vocabulary", [VOCAB, LARGE])
def test_logprobs_are_of_the_raw_distribution(vocabulary: int) -> None:
    """What the model said does not change with what is allowed to be drawn."""
    logits = logits_of(5, vocabulary)
    requests = [
        replace(GREEDY, logprobs=2),
        DRAWN,
        replace(DRAWN, seed=9, temperature=0.5, top_k=2, logprobs=5),
        replace(GREEDY, logprobs=0),
        replace(GREEDY, bad_ids=(int(logits[4].argmax()),), logprobs=1),
    ]
    step = staged(requests, vocabulary)
    words = step.bench.sampler(logits.clone(), step.params, step.layout).numpy()
    wanted = [0, 2, 3, 4]
    found = to_messages(words[wanted, 1:], [2, 5, 0, 1])
    for row, message in zip(wanted, found, strict=True):
        truth = logits[row].double().log_softmax(-1)
        assert message.logprob == pytest.approx(float(truth[words[row, 0]]), abs=1e-5)
        top, ids = truth.topk(requests[row].logprobs)
        assert list(message.top_ids) == ids.tolist()
        assert list(message.top_logprobs) == pytest.approx(top.tolist(), abs=1e-5)
    assert found[3].top_ids[0] != words[4, 0]


def test_no_logprobs_unless_wanted() -> None:
    step = staged([GREEDY], VOCAB)
    assert step.bench.sampler(logits_of(1, VOCAB), step.params, step.layout).shape == (1, 1)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_log_probabilities_of_a_row_that_has_none_fail_it(poison: float) -> None:
    """Its controls leave ids that can be drawn."""
    few = replace(DRAWN, allowed_ids=(3, 4))
    logits = logits_of(1, VOCAB)
    logits[0, 9] = poison
    assert draw(logits, [few])[0] in (3, 4)
    assert draw(logits, [replace(few, logprobs=1)]) == [FAILED]
