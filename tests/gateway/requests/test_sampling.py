"""Sampling options: bad values are refused by name, and whatever is accepted is in range."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.calls.refusal import Refusal
from gateway.requests.sampling import (
    MAX_LOGPROBS,
    MAX_STOP_IDS,
    MAX_STOP_LENGTH,
    MAX_STOPS,
    MAX_TOKEN_IDS,
)
from tests.gateway.requests.checked import CODEC, CONTEXT, EOS, INVALID, generate, refusal_of, with_ids


def test_a_top_k_of_the_whole_vocabulary_is_off() -> None:
    assert generate(with_ids(top_k=CODEC.vocab_size), CONTEXT).sampling.top_k == 0


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("temperature", [math.nan, math.inf, -math.inf, -0.1, 100.5, 1e38]),
        ("top_p", [math.nan, math.inf, -0.1, 0.0, 1.01]),
        ("min_p", [math.nan, -math.inf, -0.1, 1.01]),
        ("top_k", [2**31, 2**32 - 1]),
        ("max_tokens", [0, CONTEXT - 2, 2**32 - 1]),
        ("min_tokens", [CONTEXT - 2, 2**32 - 1]),
        ("stop", [[""], ["a"] * (MAX_STOPS + 1), ["a" * (MAX_STOP_LENGTH + 1)]]),
        ("stop_token_ids", [[CODEC.vocab_size], [2**32 - 1], [1] * (MAX_STOP_IDS + 1)]),
        ("logprobs", [MAX_LOGPROBS + 1, 2**32 - 1]),
        ("prompt_logprobs", [MAX_LOGPROBS + 1, 2**32 - 1]),
        ("typical_p", [math.nan, math.inf, -0.1, 0.0, 1.01]),
        ("repetition_penalty", [math.nan, math.inf, -1.0, 0.0, 0.009, 100.5]),
        ("presence_penalty", [math.nan, -math.inf, -2.01, 2.01]),
        ("frequency_penalty", [math.nan, math.inf, -2.01, 2.01]),
        (
            "logit_bias",
            [
                {5: math.nan},
                {5: math.inf},
                {5: 100.5},
                {5: -100.5},
                {CODEC.vocab_size: 1.0},
                {2**32 - 1: 1.0},
                dict.fromkeys(range(MAX_TOKEN_IDS + 1), 1.0),
            ],
        ),
        ("allowed_token_ids", [[CODEC.vocab_size], [5, 2**32 - 1], [1] * (MAX_TOKEN_IDS + 1)]),
        ("bad_token_ids", [[CODEC.vocab_size], [5, 2**32 - 1], [1] * (MAX_TOKEN_IDS + 1)]),
        ("n", [0, 17, 2**32 - 1]),
    ],
)
def test_a_bad_sampling_value_is_refused_by_name(field: str, values: list[object]) -> None:
    for value in values:
        refusal = refusal_of(with_ids(**{field: value}))
        assert refusal.code is INVALID
        assert refusal.message.startswith(f"sampling.{field}: ")


def test_min_tokens_above_max_tokens_is_refused() -> None:
    assert refusal_of(with_ids(max_tokens=4, min_tokens=5)).message.startswith("sampling.min_tokens: ")


def test_controls_that_contradict_each_other_are_refused() -> None:
    """Whatever the logits, there must be a token to draw."""
    everything = list(range(CODEC.vocab_size))
    contradictions: list[tuple[str, dict[str, object]]] = [
        ("allowed_token_ids", {"allowed_token_ids": [5, 6], "bad_token_ids": [6, 5, 7]}),
        ("bad_token_ids", {"bad_token_ids": everything}),
        ("min_tokens", {"min_tokens": 1, "allowed_token_ids": [1]}),
        ("min_tokens", {"min_tokens": 1, "allowed_token_ids": [1, 5], "stop_token_ids": [5]}),
        ("min_tokens", {"min_tokens": 1, "allowed_token_ids": [1, 5, 6], "bad_token_ids": [5, 6]}),
        ("min_tokens", {"min_tokens": 1, "bad_token_ids": everything[2:], "stop_token_ids": [0]}),
    ]
    for field, options in contradictions:
        refusal = refusal_of(with_ids(**options))
        assert (refusal.code, refusal.message.split(":")[0]) == (INVALID, f"sampling.{field}")


def test_controls_that_leave_a_token_are_taken() -> None:
    everything = list(range(CODEC.vocab_size))
    for options in (
        {"allowed_token_ids": [5, 6], "bad_token_ids": [6]},
        {"bad_token_ids": everything[1:]},
        {"allowed_token_ids": [1]},
        {"allowed_token_ids": [1], "min_tokens": 1, "ignore_eos": True},
        {"allowed_token_ids": [1, 5], "min_tokens": 1},
        {"allowed_token_ids": everything, "bad_token_ids": everything[:-1]},
        {"n": 16, "temperature": 0},
        {"logit_bias": dict.fromkeys(everything, -100)},
    ):
        assert generate(with_ids(**options)).prompt == (7, 7, 7)


def test_ids_are_taken_once_each() -> None:
    sampling = generate(with_ids(allowed_token_ids=[6, 5, 6], bad_token_ids=[9, 9])).sampling
    assert (sampling.allowed_ids, sampling.bad_ids) == ((6, 5), (9,))


U32 = st.integers(0, 2**32 - 1) | st.integers(0, 70)
IDS = st.integers(0, CODEC.vocab_size) | st.integers(0, 3)
FLOAT = st.floats(width=32) | st.floats(-0.5, 1.5, width=32)
ANY_SAMPLING = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("max_tokens", "min_tokens", "top_k", "logprobs", "prompt_logprobs", "n"), U32),
        **dict.fromkeys(("temperature", "top_p", "min_p", "typical_p"), FLOAT),
        **dict.fromkeys(("repetition_penalty", "presence_penalty", "frequency_penalty"), FLOAT),
        "logit_bias": st.dictionaries(IDS, FLOAT, max_size=3),
        "allowed_token_ids": st.lists(IDS, max_size=3),
        "bad_token_ids": st.lists(IDS, max_size=3),
        "seed": st.integers(0, 2**64 - 1),
        "stop_token_ids": st.lists(IDS, max_size=3),
    },
)


@given(options=ANY_SAMPLING)
def test_whatever_is_accepted_is_in_range(options: dict[str, object]) -> None:
    try:
        valid = generate(with_ids(**options))
    except Refusal as refusal:
        named = refusal.message.removeprefix("sampling.").split(":")[0]
        assert named in options
        return
    sampling = valid.sampling
    assert 1 <= valid.n <= 16
    assert 0 < sampling.typical_p <= 1
    assert 0.0099 < sampling.repetition_penalty <= 100
    assert max(abs(sampling.presence_penalty), abs(sampling.frequency_penalty)) <= 2
    assert all(token < CODEC.vocab_size and abs(bias) <= 100 for token, bias in sampling.logit_bias)
    left = set(sampling.allowed_ids or range(CODEC.vocab_size)) - set(sampling.bad_ids)
    assert left
    ends = {*sampling.stop_ids, *(() if sampling.ignore_eos else EOS)}
    assert left - ends or not sampling.min_tokens
    assert 0 <= sampling.min_tokens <= sampling.max_tokens <= CONTEXT - 3
    assert 0 <= sampling.temperature <= 100
    assert 0 < sampling.top_p <= 1
    assert 0 <= sampling.min_p <= 1
    assert 0 <= sampling.top_k < CODEC.vocab_size
    assert -1 <= sampling.logprobs <= MAX_LOGPROBS
    assert all(token < CODEC.vocab_size for token in sampling.stop_ids)
