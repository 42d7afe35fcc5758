"""Every field's bad values are refused by name; what is not set takes its default."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from albireo.models import TINY
from albireo.v1 import inference_pb2 as api
from gateway.calls.refusal import Refusal
from gateway.requests.validation import Validator
from gateway.text.text_codec import TextCodec
from tests.gateway.requests.checked import (
    CODEC,
    CONTEXT,
    EOS,
    INVALID,
    VALIDATOR,
    generate,
    refusal_of,
    with_ids,
)

UNSUPPORTED = grpc.StatusCode.FAILED_PRECONDITION


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
    bare = Validator(TextCodec(tmp_path))
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
