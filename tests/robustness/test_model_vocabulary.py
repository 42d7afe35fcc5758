"""Tokens that the tokenizer has and the model has not are refused before they can reach it."""

from __future__ import annotations

import logging
from pathlib import Path

import grpc
import pytest
from transformers import AutoTokenizer

from albireo.v1 import inference_pb2 as api
from gateway.calls.refusal import Refusal
from gateway.requests.validation import Validator
from gateway.text.text_codec import TextCodec
from tests.robustness.checkpoints_made import CONFIG, OPTIONS, TOKENIZER, chat, checkpoint

ADDED = {"<tool>": 384, "<far>": 100_000}


@pytest.mark.parametrize("token", ADDED)
def test_a_text_or_chat_with_such_a_token_names_field_token_and_id(token: str, tmp_path: Path) -> None:
    made = TextCodec(checkpoint(tmp_path, added_tokens__json=ADDED))
    validator, conversation = Validator(made), chat(f"use {token} now")
    of_chat = api.GenerateRequest(chat=api.Chat(messages=conversation))
    for field, call in (
        ("text", lambda: made.encode(token)),
        ("text", lambda: validator.generate(api.GenerateRequest(text=f"use {token}"), 100, ())),
        ("chat", lambda: made.encode_chat(conversation, "chat")),
        ("chat", lambda: validator.generate(of_chat, 100, ())),
    ):
        with pytest.raises(Refusal) as raised:
            call()
        assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT
        assert raised.value.message.startswith(f"{field}: token ")
        assert repr(token) in raised.value.message


def test_other_texts_are_served_and_the_start_warns_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        made = TextCodec(checkpoint(tmp_path, added_tokens__json=ADDED))
    assert len(made.encode("use a tool")) > 3
    [record] = caplog.records
    assert f"beyond the model's vocab_size, {CONFIG['vocab_size']}" in record.getMessage()


def test_a_token_that_the_template_writes_is_found_too(tmp_path: Path) -> None:
    options = {**OPTIONS, "chat_template": "<tool>{{ messages[0].content }}"}
    made = TextCodec(checkpoint(tmp_path, added_tokens__json=ADDED, tokenizer_config__json=options))
    with pytest.raises(Refusal, match="chat: token 384, '<tool>'"):
        made.encode_chat(chat("hi"), "chat")


def test_a_text_that_the_tokenizer_has_no_token_for_is_refused(tmp_path: Path) -> None:
    """It has no unknown token either: transformers raises, which would be an internal error here."""
    words = {"type": "WordLevel", "vocab": {"yes": 0, "no": 1}, "unk_token": "<none>"}
    directory = checkpoint(
        tmp_path,
        tokenizer__json={**TOKENIZER, "model": words, "pre_tokenizer": None, "added_tokens": []},
        tokenizer_config__json={"tokenizer_class": "PreTrainedTokenizerFast"},
    )
    made = TextCodec(directory)
    assert made.encode("yes") == [0]
    with pytest.raises(Exception, match="WordLevel error"):
        AutoTokenizer.from_pretrained(directory)("maybe")
    with pytest.raises(Refusal, match=r"text: the tokenizer refuses it: .*WordLevel error"):
        made.encode("maybe")
