"""Every field's bad values are refused by name; what is not set takes its default."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.models import TINY
from albireo.v1 import inference_pb2 as api
from gateway.calls.refusal import Refusal
from gateway.requests.sampling import (
    MAX_LOGPROBS,
    MAX_STOP_IDS,
    MAX_STOP_LENGTH,
    MAX_STOPS,
    MAX_TOKEN_IDS,
)
from gateway.requests.validation import Validator, ValidRequest
from gateway.text.text_codec import TextCodec

CODEC = TextCodec(TINY)
VALIDATOR = Validator("tiny", CODEC)
CONTEXT = 64
EOS = (1,)

INVALID = grpc.StatusCode.INVALID_ARGUMENT
UNSUPPORTED = grpc.StatusCode.FAILED_PRECONDITION


def generate(request: api.GenerateRequest, max_model_len: int = CONTEXT) -> ValidRequest:
    return VALIDATOR.generate(request, max_model_len, EOS)


def with_ids(count: int = 3, /, **sampling: object) -> api.GenerateRequest:
    options = api.SamplingOptions(**sampling)  # type: ignore[arg-type]
    return api.GenerateRequest(token_ids=api.TokenIds(ids=[7] * count), sampling=options)


def refusal_of(request: api.GenerateRequest) -> Refusal:
    with pytest.raises(Refusal) as raised:
        generate(request)
    return raised.value


def chat(*turns: tuple[str, str]) -> api.Chat:
    return api.Chat(messages=[api.ChatMessage(role=role, content=content) for role, content in turns])


def test_a_bare_request_gets_the_documented_defaults() -> None:
    valid = generate(with_ids(), 1000)
    sampling = valid.sampling
    assert valid.request_id
    assert (valid.prompt, valid.stops, valid.priority) == ((7, 7, 7), (), 0)
    assert (sampling.max_tokens, sampling.min_tokens, sampling.temperature) == (256, 0, 1.0)
    assert (sampling.top_k, sampling.top_p, sampling.min_p) == (0, 1.0, 0.0)
    assert (sampling.stop_ids, sampling.ignore_eos, sampling.logprobs) == ((), False, -1)
    assert (sampling.prompt_logprobs, sampling.typical_p, sampling.repetition_penalty) == (-1, 1, 1)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0, 0)
    assert (sampling.logit_bias, sampling.allowed_ids, sampling.bad_ids, valid.n) == ((), (), (), 1)
    again = generate(with_ids(), 1000)
    assert again.request_id != valid.request_id
    assert again.sampling.seed != sampling.seed
    assert generate(with_ids(), CONTEXT).sampling.max_tokens == CONTEXT - 3


def test_every_field_that_is_set_arrives() -> None:
    request = with_ids(
        max_tokens=9,
        min_tokens=2,
        temperature=0.5,
        top_k=40,
        top_p=0.75,
        min_p=0.25,
        seed=2**64 - 1,
        stop=["a", "b"],
        stop_token_ids=[5, 6],
        ignore_eos=True,
        logprobs=0,
        prompt_logprobs=20,
        typical_p=0.5,
        repetition_penalty=1.5,
        presence_penalty=-2,
        frequency_penalty=2,
        logit_bias={9: -100, 8: 0.5},
        allowed_token_ids=[5, 7, 8, 9],
        bad_token_ids=[9],
        n=16,
    )
    request.request_id, request.model, request.priority = "my.id_-1", "tiny", -100
    valid = generate(request, CONTEXT)
    sampling = valid.sampling
    assert (valid.request_id, valid.priority, valid.stops) == ("my.id_-1", -100, ("a", "b"))
    assert (sampling.max_tokens, sampling.min_tokens, sampling.temperature) == (9, 2, 0.5)
    assert (sampling.top_k, sampling.top_p, sampling.min_p) == (40, 0.75, 0.25)
    assert (sampling.seed, sampling.stop_ids) == (2**64 - 1, (5, 6))
    assert (sampling.ignore_eos, sampling.logprobs, sampling.prompt_logprobs) == (True, 0, 20)
    assert (sampling.typical_p, sampling.repetition_penalty) == (0.5, 1.5)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (-2, 2)
    assert sampling.logit_bias == ((8, 0.5), (9, -100))
    assert (sampling.allowed_ids, sampling.bad_ids, valid.n) == ((5, 7, 8, 9), (9,), 16)


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


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("request_id", lambda r: setattr(r, "request_id", "a" * 65)),
        ("request_id", lambda r: setattr(r, "request_id", "a b")),
        ("request_id", lambda r: setattr(r, "request_id", "a\n")),
        ("request_id", lambda r: setattr(r, "request_id", "ä")),
        ("priority", lambda r: setattr(r, "priority", 101)),
        ("priority", lambda r: setattr(r, "priority", -101)),
        ("input", lambda r: r.ClearField("token_ids")),
        ("text", lambda r: setattr(r, "text", "")),
        ("text", lambda r: setattr(r, "text", "x1" * CONTEXT)),
        ("token_ids", lambda r: r.token_ids.ClearField("ids")),
        ("token_ids.ids", lambda r: r.token_ids.ids.append(CODEC.vocab_size)),
        ("token_ids.ids", lambda r: r.token_ids.ids.append(2**32 - 1)),
        ("token_ids", lambda r: r.token_ids.ids.extend([7] * CONTEXT)),
        ("chat.messages", lambda r: r.chat.SetInParent()),
        ("chat.messages", lambda r: r.chat.messages.add(role="admin", content="hi")),
        ("chat", lambda r: r.chat.messages.add(role="user", content="x1" * CONTEXT)),
    ],
)
def test_a_bad_field_is_refused_by_name(field: str, change: Callable[[api.GenerateRequest], None]) -> None:
    request = with_ids()
    change(request)
    refusal = refusal_of(request)
    assert refusal.code is INVALID
    assert refusal.message.startswith(f"{field}: ")


def test_the_longest_prompt_leaves_room_for_one_token() -> None:
    assert generate(with_ids(CONTEXT - 1), CONTEXT).sampling.max_tokens == 1
    assert refusal_of(with_ids(CONTEXT)).message.startswith("token_ids: ")


def test_another_model_is_not_found() -> None:
    request = with_ids()
    request.model = "other"
    refusal = refusal_of(request)
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert "'other'" in refusal.message


@pytest.mark.parametrize("path", ["", "sampling", "token_ids"])
def test_a_field_of_a_newer_client_is_refused_and_never_ignored(path: str) -> None:
    request = with_ids()
    message = getattr(request, path) if path else request
    message.MergeFromString(b"\xf8\x3f\x01")  # field 1023, varint 1
    refusal = refusal_of(request)
    assert refusal.code is UNSUPPORTED
    assert "field number 1023" in refusal.message
    assert refusal.message.startswith(f"{path}.field" if path else "field")


def test_a_newer_field_inside_a_repeated_message_is_seen() -> None:
    request = api.GenerateRequest(chat=chat(("user", "a"), ("user", "b")))
    request.chat.messages[1].MergeFromString(b"\xf8\x3f\x01")
    assert refusal_of(request).message.startswith("chat.messages.field number 1023")


def test_chat_without_a_template_is_not_supported(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text((TINY / name).read_text())
    bare = Validator("tiny", TextCodec(tmp_path))
    request = api.GenerateRequest(chat=chat(("user", "hi")))
    with pytest.raises(Refusal) as raised:
        bare.generate(request, CONTEXT, EOS)
    assert raised.value.code is UNSUPPORTED
    assert raised.value.message.startswith("chat: ")


def test_chat_text_and_ids_of_one_prompt_agree() -> None:
    turns = chat(("user", "What is 1 + 1?"), ("assistant", "2"), ("user", "And 2 + 2?"))
    text = "<|bos|><|user|>What is 1 + 1?<|end|><|assistant|>2<|end|><|user|>And 2 + 2?<|end|><|assistant|>"
    from_chat = generate(api.GenerateRequest(chat=turns), 1000).prompt
    assert generate(api.GenerateRequest(text=text), 1000).prompt == from_chat
    ids = api.TokenIds(ids=from_chat)
    assert generate(api.GenerateRequest(token_ids=ids), 1000).prompt == from_chat
    assert tuple(VALIDATOR.tokenize(api.TokenizeRequest(chat=turns), CONTEXT).ids) == from_chat
    detokenize = api.DetokenizeRequest(ids=from_chat, skip_special_tokens=False)
    assert VALIDATOR.detokenize(detokenize).text == text
    detokenize.ClearField("skip_special_tokens")
    assert VALIDATOR.detokenize(detokenize).text == "What is 1 + 1?2And 2 + 2?"


def test_detokenize_refuses_ids_out_of_the_vocabulary() -> None:
    with pytest.raises(Refusal, match="ids: ") as raised:
        VALIDATOR.detokenize(api.DetokenizeRequest(ids=[CODEC.vocab_size]))
    assert raised.value.code is INVALID


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


@pytest.mark.parametrize("tenant", ["", "a", "Team-7.x_y", "x" * 64])
def test_a_tenant_is_a_name_or_the_default(tenant: str) -> None:
    message = with_ids()
    message.tenant = tenant
    assert generate(message).tenant == (tenant or "default")


@pytest.mark.parametrize("tenant", ["a b", "x" * 65, "a#1", "ä"])
def test_a_tenant_that_is_no_name_is_refused(tenant: str) -> None:
    message = with_ids()
    message.tenant = tenant
    refusal = refusal_of(message)
    assert refusal.code is INVALID
    assert refusal.message.startswith("tenant: ")
