"""The API against the live stack: agreement of its parts, and refusals that leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from albireo.v1 import control_pb2
from albireo.v1 import inference_pb2 as api
from tests.stack import Running, ask, request

CODE = grpc.StatusCode
STORY = "Tell me a story about a fox."


def refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    error: Any = raised.value
    return error.code(), error.details()


def test_text_ids_and_chat_of_one_prompt_give_one_answer(tp2: Running) -> None:
    by_chat = request(STORY, max_tokens=24)
    tokenized = tp2.inference.Tokenize(api.TokenizeRequest(chat=by_chat.chat), timeout=10).ids
    by_ids = api.GenerateRequest(token_ids=api.TokenIds(ids=tokenized), sampling=by_chat.sampling)
    rendered = api.DetokenizeRequest(ids=tokenized, skip_special_tokens=False)
    text = tp2.inference.Detokenize(rendered, timeout=10).text
    by_text = api.GenerateRequest(text=text, sampling=by_chat.sampling)
    answers = [ask(tp2, message) for message in (by_chat, by_ids, by_text)]
    assert [answer.ids for answer in answers] == [answers[0].ids] * 3
    assert {a.events[0].accepted.prompt_tokens for a in answers} == {len(tokenized)}


@pytest.mark.parametrize("seed", range(4))
def test_text_deltas_add_up_to_the_decoding_of_all_ids(tp2: Running, seed: int) -> None:
    """At a temperature at which the model draws bytes that are no characters."""
    answer = ask(tp2, request(STORY, max_tokens=120, temperature=50.0, seed=seed, ignore_eos=True))
    decoded = tp2.inference.Detokenize(api.DetokenizeRequest(ids=answer.ids), timeout=10).text
    assert answer.text == decoded
    assert "\ufffd" in decoded
    offsets = [event.tokens.offset for event in answer.events if event.HasField("tokens")]
    counts = [len(event.tokens.ids) for event in answer.events if event.HasField("tokens")]
    assert offsets == [sum(counts[:n]) for n in range(len(counts))]


def test_tokenize_and_detokenize_are_inverse_for_any_script(tp2: Running) -> None:
    text = "The fox 🦊 läuft — 日本語, 37 + 45 = 82\n"
    ids = tp2.inference.Tokenize(api.TokenizeRequest(text=text), timeout=10).ids
    assert tp2.inference.Detokenize(api.DetokenizeRequest(ids=ids), timeout=10).text == text


def test_a_stop_token_id_ends_a_stream_and_is_named(tp2: Running) -> None:
    full = ask(tp2, request(STORY, max_tokens=12, ignore_eos=True))
    chosen = full.ids[8]
    first = full.ids.index(chosen)
    cut = ask(tp2, request(STORY, max_tokens=12, ignore_eos=True, stop_token_ids=[chosen]))
    assert cut.ids == full.ids[: first + 1]
    assert cut.finished.reason == api.FINISH_REASON_STOP
    assert cut.finished.stop_token_id == chosen
    kept = ask(
        tp2, request(STORY, max_tokens=12, ignore_eos=True, stop_token_ids=[chosen], min_tokens=first + 2)
    )
    assert len(kept.ids) >= first + 2


def test_servers_and_models_describe_themselves(tp2: Running) -> None:
    server = tp2.control.GetServerInfo(control_pb2.GetServerInfoRequest(), timeout=5)
    assert (server.api, list(server.models)) == ("albireo.v1", ["tiny"])
    assert (server.max_message_bytes, server.max_queue) == (4 << 20, 1024)
    model = tp2.control.GetModelInfo(control_pb2.GetModelInfoRequest(model="tiny"), timeout=5)
    assert (model.vocab_size, model.max_model_len, model.tp) == (384, 1024, 2)
    assert (model.dtype, model.device, model.chat) == ("float32", "cpu", True)
    assert list(model.eos_token_ids) == [1]
    assert tp2.load().group_alive


def named(text: str | None = "hi", **sampling: Any) -> api.GenerateRequest:
    return api.GenerateRequest(text=text, sampling=api.SamplingOptions(**sampling))


@pytest.mark.parametrize(
    ("message", "code", "field"),
    [
        (api.GenerateRequest(), CODE.INVALID_ARGUMENT, "input"),
        (named(""), CODE.INVALID_ARGUMENT, "text"),
        (named("1" * 1024), CODE.INVALID_ARGUMENT, "text"),
        (api.GenerateRequest(token_ids=api.TokenIds(ids=[384])), CODE.INVALID_ARGUMENT, "token_ids.ids"),
        (named(temperature=float("nan")), CODE.INVALID_ARGUMENT, "sampling.temperature"),
        (named(max_tokens=0), CODE.INVALID_ARGUMENT, "sampling.max_tokens"),
        (named(max_tokens=2**32 - 1), CODE.INVALID_ARGUMENT, "sampling.max_tokens"),
        (named(n=17), CODE.INVALID_ARGUMENT, "sampling.n"),
        (named(presence_penalty=2.5), CODE.INVALID_ARGUMENT, "sampling.presence_penalty"),
        (named(logit_bias={384: 1.0}), CODE.INVALID_ARGUMENT, "sampling.logit_bias"),
        (named(min_tokens=1, allowed_token_ids=[1]), CODE.INVALID_ARGUMENT, "sampling.min_tokens"),
        (api.GenerateRequest(text="hi", model="other"), CODE.NOT_FOUND, "model"),
        (api.GenerateRequest(text="hi", request_id="a b"), CODE.INVALID_ARGUMENT, "request_id"),
    ],
)
def test_a_refusal_names_the_field(
    unharmed: Running, message: api.GenerateRequest, code: grpc.StatusCode, field: str
) -> None:
    found, details = refusal(lambda: ask(unharmed, message))
    assert found is code
    assert details.startswith(f"{field}: ")


def test_a_request_id_is_not_taken_twice(unharmed: Running) -> None:
    message = request("What is 1 + 1?")
    message.request_id = "only-once"
    assert ask(unharmed, message).kinds[-1] == "finished"
    message.sampling.max_tokens += 1
    assert refusal(lambda: ask(unharmed, message))[0] is CODE.ALREADY_EXISTS


def test_text_that_is_not_utf8_and_50_mb_are_refused(unharmed: Running) -> None:
    raw: Any = unharmed.channel.unary_stream("/albireo.v1.Inference/Generate")  # no serializer: bytes
    assert refusal(lambda: list(raw(b"\x1a\x02\xff\xfe", timeout=10)))[0] is CODE.INVALID_ARGUMENT
    assert refusal(lambda: ask(unharmed, named("x" * 50_000_000)))[0] is CODE.RESOURCE_EXHAUSTED
    assert ask(unharmed, request("What is 1 + 1?")).kinds[-1] == "finished"
