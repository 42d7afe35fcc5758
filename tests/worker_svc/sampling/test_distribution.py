"""What the controls leave of a distribution: transformers' own are the measure, in fp64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from albireo.contract.plan import SamplingParams
from tests.worker_svc.sampled import DRAWN, Row, expected, logits_of, weights
from worker_svc.sampling import draw

EOS = frozenset({3, 5})


def check(vocabulary: int, seed: int, scale: float, row: Row) -> bool:
    """Alike, whichever way it is computed. False where rounding decides what is cut."""
    logits = logits_of(1, vocabulary, seed, scale)[0]
    theirs = expected(logits, row, eos_ids=EOS)
    for shift in (-1e-6, 1e-6):
        moved = expected(logits, row, shift=shift, eos_ids=EOS)
        if not torch.equal(moved > 0, theirs > 0):
            return False
    for on_cpu in (True, False):
        ours = weights(logits, row, on_cpu=on_cpu, eos_ids=EOS)
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)
        assert not ours[theirs == 0].any()
    return True


CONTROLS: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.6},
    "top_k": {"top_k": 7},
    "top_k beyond the first": {"top_k": 300},
    "top_k of everything": {"top_k": 100_000},
    "top_p": {"top_p": 0.9},
    "tiny top_p": {"top_p": 1e-6},
    "min_p": {"min_p": 0.07},
    "highest min_p": {"min_p": 1.0},
    "typical_p": {"typical_p": 0.8},
    "repetition_penalty": {"repetition_penalty": 1.3},
    "repetition_reward": {"repetition_penalty": 0.8},
    "presence_penalty": {"presence_penalty": 1.1},
    "frequency_penalty": {"frequency_penalty": -0.4},
    "logit_bias": {"logit_bias": ((4, 3.5), (9, -100.0))},
    "allowed_ids": {"allowed_ids": (2, 11, 29, 30)},
    "bad_ids": {"bad_ids": (0, 1, 2, 31)},
    "min_tokens": {"min_tokens": 9, "stop_ids": (8, 9)},
    "ignore_eos": {"min_tokens": 9, "stop_ids": (8,), "ignore_eos": True},
}


@pytest.mark.parametrize("vocabulary", [61, 20_011])
@pytest.mark.parametrize("name", CONTROLS)
def test_each_control(name: str, vocabulary: int) -> None:
    sampling = replace(DRAWN, **CONTROLS[name])
    assert check(vocabulary, 1, 2.0, Row(sampling, prompt=(7, 8, 9, 8), outputs=(9, 10, 11, 9)))


ids = st.integers(0, 59)
lists = st.lists(ids, max_size=8, unique=True).map(tuple)
params = st.builds(
    SamplingParams,
    max_tokens=st.just(100),
    seed=st.just(0),
    min_tokens=st.sampled_from([0, 2, 30]),
    temperature=st.floats(0.25, 3, width=32),
    top_k=st.sampled_from([0, 0, 1, 5, 40, 250, 300]),
    top_p=st.sampled_from([1.0, 0.99, 0.9, 0.5, 0.1]),
    min_p=st.sampled_from([0.0, 0.0, 0.01, 0.3]),
    stop_ids=lists,
    ignore_eos=st.booleans(),
    typical_p=st.sampled_from([1.0, 1.0, 0.95, 0.3]),
    repetition_penalty=st.sampled_from([1.0, 1.25, 0.75]),
    presence_penalty=st.sampled_from([0.0, 1.5, -0.5]),
    frequency_penalty=st.sampled_from([0.0, 0.25, -0.125]),
    logit_bias=st.dictionaries(ids, st.sampled_from([-3.0, 0.5, 8.0]), max_size=5).map(
        lambda bias: tuple(bias.items())
    ),
    allowed_ids=st.one_of(st.just(()), st.lists(ids, min_size=9, max_size=40, unique=True).map(tuple)),
    bad_ids=lists,
)


@settings(deadline=None)  # the machine may be busy
@given(
    params,
    st.lists(ids, min_size=1, max_size=20).map(tuple),
    st.lists(ids, max_size=20).map(tuple),
    st.sampled_from([60, 131, 3000, 40_000]),
    st.integers(0, 1000),
    st.sampled_from([0.3, 2.0, 6.0]),
)
def test_any_combination(
    sampling: SamplingParams,
    prompt: tuple[int, ...],
    outputs: tuple[int, ...],
    vocabulary: int,
    seed: int,
    scale: float,
) -> None:
    ends = {*sampling.stop_ids, *EOS}
    assume(not sampling.allowed_ids or set(sampling.allowed_ids) - set(sampling.bad_ids) - ends)
    assume(check(vocabulary, seed, scale, Row(sampling, prompt, outputs)))


def test_equal_logits_at_a_threshold_are_all_kept() -> None:
    """transformers' top_k keeps them too; its top_p keeps those that its sort happens to put first."""
    logits = torch.tensor([3.0, 1.0, 2.0, 2.0, 0.0])
    for sampling in (replace(DRAWN, top_k=2), replace(DRAWN, top_p=0.7)):
        found = weights(logits, Row(sampling))
        assert (found > 0).tolist() == [True, False, True, True, False]
        assert found[2] == found[3]


def test_more_equal_logits_than_are_looked_at_first() -> None:
    """The few largest are not enough to know, and the row is looked at as a whole."""
    logits = torch.zeros(20_000)
    logits[7_000], logits[9_000:12_000] = 5.0, 3.0
    found = weights(logits, Row(replace(DRAWN, top_k=50)))
    assert int((found > 0).sum()) == 3001
    assert int((found[9_000:12_000] > 0).sum()) == 3000


def test_a_nucleus_larger_than_the_first_candidates() -> None:
    row = Row(replace(DRAWN, top_p=0.9))
    logits = logits_of(1, 20_000, scale=0.1)[0]
    assert int((expected(logits, row) > 0).sum()) > 10 * draw.NUCLEUS
    assert check(20_000, 0, 0.1, row)


def test_top_p_cuts_at_the_same_place_by_few_numbers_and_by_all() -> None:
    """Between a total that was rounded one way and one that was rounded another."""
    for seed in range(10):
        logits = logits_of(1, 20_011, seed, 4.0)[0]
        chances = logits.softmax(-1)
        exact = (logits - logits.max()).double().exp().sort(descending=True).values.cumsum(-1)
        share = exact[:30] * (chances.amax().double() + 1 / exact[-1]) / 2
        for top_p in share.tolist():
            weights(logits, Row(replace(DRAWN, temperature=1.0, top_p=top_p)))  # compares both
