"""What streams is what transformers decodes: leading spaces, bytes, ends and stops to the token."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from albireo.contract.plan import Finish, SamplingParams
from albireo.v1 import inference_pb2 as api
from bench.tokenizers.compare import compare
from gateway.requests.validation import ValidRequest
from gateway.streams.stream import TokenStream
from gateway.text.detokenizer import Vocabulary
from tests.gateway.tokenizers_made import MAKERS, SPECIAL, id_of
from tests.robustness.checkpoints_made import OPTIONS, checkpoint

TOKENIZERS = {name: make() for name, make in MAKERS.items()}
ALL_BYTES = ["byte_level", "byte_fallback"]
REPLACEMENT = "\ufffd"


@pytest.mark.parametrize("name", MAKERS)
def test_ids_texts_and_chats_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    """The corpus of bench.tokenizers on the small made tokenizers."""
    tokenizer = TOKENIZERS[name]
    options = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "bos_token": "<s>"}
    directory = checkpoint(
        tmp_path,
        tokenizer__json=tokenizer.to_str(),
        tokenizer_config__json={**options, "chat_template": OPTIONS["chat_template"]},
        config__json={"vocab_size": tokenizer.get_vocab_size()},
    )
    for kind, count in compare(directory).items():
        assert count.total >= 30, kind
        assert not count.differences[:3], kind


def streamed(
    tokenizer: Tokenizer, prompt: list[int], outputs: list[int], *, stop: str = "", stop_id: int = -1
) -> list[api.GenerateEvent]:
    """The events of a stream that is read after each token; ``stop_id`` ends it as a rank would."""
    sampling = SamplingParams(max_tokens=10_000, seed=0, stop_ids=(stop_id,) if stop_id >= 0 else ())
    request = ValidRequest("r", tuple(prompt), sampling, (stop,) if stop else (), 0, 1, "default")
    stream = TokenStream(request, Vocabulary(tokenizer), lambda name: None)
    [branch] = stream.branches.values()
    events = []
    for position, token in enumerate(outputs):
        if not branch.delivered:
            branch.push(position, token, None, Finish.STOP if token == stop_id else Finish.NONE)
            events += branch.pop_events()
    if not branch.delivered:
        branch.finish(Finish.LENGTH)
        events += branch.pop_events()
    return events


def text_of(events: list[api.GenerateEvent]) -> str:
    return "".join(event.tokens.text for event in events)


@pytest.mark.parametrize("name", MAKERS)
def test_an_answer_keeps_its_leading_space(name: str) -> None:
    theirs = PreTrainedTokenizerFast(tokenizer_object=TOKENIZERS[name])
    ids = theirs("a story about 37 bears", add_special_tokens=False)["input_ids"]
    texts = [text_of(streamed(TOKENIZERS[name], ids[:cut], ids[cut:])) for cut in range(1, len(ids))]
    for cut, text in enumerate(texts, 1):
        assert f"{theirs.decode(ids[:cut])}{text}" == theirs.decode(ids)
    assert any(text.startswith(" ") for text in texts)


def byte_ids(name: str, text: str) -> list[int]:
    """The single bytes of ``text`` as ids."""
    if name == "byte_fallback":
        tokens = [f"<0x{byte:02X}>" for byte in text.encode()]
    else:  # one letter a byte, as the library writes them
        [(letters, _)] = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
        tokens = list(letters)
    return [id_of(TOKENIZERS[name], token) for token in tokens]


@pytest.mark.parametrize("name", ALL_BYTES)
def test_a_character_comes_with_its_last_byte(name: str) -> None:
    events = streamed(TOKENIZERS[name], [], byte_ids(name, "é🦩\n日"))
    texts = [event.tokens.text for event in events if event.HasField("tokens")]
    assert texts == ["", "é", "", "", "", "🦩", "\n", "", "", "日"]


@pytest.mark.parametrize("name", ALL_BYTES)
def test_a_stop_that_is_a_byte_ends_at_that_byte(name: str) -> None:
    ids = byte_ids(name, "ab\ncd")
    stream = partial(streamed, TOKENIZERS[name], [], ids)
    for events in (stream(stop="\n"), stream(stop_id=ids[2])):
        assert text_of(events) == "ab"
        assert [token for event in events for token in event.tokens.ids] == ids[:3]
        assert events[-1].finished.reason == api.FINISH_REASON_STOP


@pytest.mark.parametrize("name", ALL_BYTES)
def test_wrong_bytes_stream_as_they_come_in_linear_time(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    wrong = byte_ids(name, "\x80")[1:]  # C2 80 in UTF-8; the second byte begins no character
    began = time.process_time()
    events = streamed(tokenizer, [], wrong * 8_000)
    assert time.process_time() - began < 2  # 5 s when each decoded all before it
    assert {event.tokens.text for event in events[:-1]} == {REPLACEMENT}
    assert text_of(events) == tokenizer.decode(wrong * 8_000)


@pytest.mark.parametrize("name", MAKERS)
def test_the_text_of_a_special_token_stops_and_does_not_leak(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    user = id_of(tokenizer, SPECIAL[2].content)
    ids = tokenizer.encode("a story", add_special_tokens=False).ids
    events = streamed(tokenizer, ids, [*ids, user, *ids], stop=SPECIAL[2].content)
    assert text_of(events).strip() == "a story"
    assert events[-1].finished.stop == SPECIAL[2].content


def test_an_end_token_that_is_no_special_token_has_no_text() -> None:
    data = json.loads(TOKENIZERS["byte_level"].to_str())
    for token in data["added_tokens"]:
        token["special"] = False
    tokenizer = Tokenizer.from_str(json.dumps(data))
    ids, end = tokenizer.encode("a story").ids, id_of(tokenizer, "</s>")
    events = streamed(tokenizer, ids, [*ids, end], stop_id=end)
    assert (text_of(events), events[-1].finished.stop_token_id) == ("a story", end)
