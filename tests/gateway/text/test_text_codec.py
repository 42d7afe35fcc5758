"""Tokenizer and chat template as checkpoints of other makers bring them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from albireo.models import TINY
from albireo.v1 import inference_pb2 as api
from gateway.calls.refusal import Refusal
from gateway.text.text_codec import TextCodec

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m['content'] | trim }}{{ eos_token }}{% endfor %}"
)


@pytest.fixture
def make_codec(tmp_path: Path) -> Callable[..., TextCodec]:
    """Makes the codec of a checkpoint with these tokenizer options and perhaps a template file."""

    def make(*, template_file: str | None = None, **options: Any) -> TextCodec:
        for name in ("config.json", "tokenizer.json"):
            (tmp_path / name).write_text((TINY / name).read_text())
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(options))
        if template_file is not None:
            (tmp_path / "chat_template.jinja").write_text(template_file)
        return TextCodec(tmp_path)

    return make


def rendered(codec: TextCodec, content: str = "hi", role: str = "user") -> str:
    ids = codec.encode_chat([api.ChatMessage(role=role, content=content)], "chat")
    text: str = codec.tokenizer.decode(ids, skip_special_tokens=False)
    return text


def test_special_tokens_come_by_text_or_as_a_record(make_codec: Callable[..., TextCodec]) -> None:
    record = {"__type": "AddedToken", "content": "<|bos|>", "special": True}
    options = {"bos_token": record, "eos_token": "<|end|>", "chat_template": TEMPLATE}
    assert rendered(make_codec(**options)) == "<|bos|>user:hi<|end|>"
    assert rendered(make_codec(chat_template=TEMPLATE)) == "user:hi"


def test_of_several_templates_the_default_is_taken(make_codec: Callable[..., TextCodec]) -> None:
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": TEMPLATE}]
    assert rendered(make_codec(chat_template=named)) == "user:hi"
    assert not make_codec(chat_template=named[:1]).has_chat_template


def test_a_template_file_takes_precedence(make_codec: Callable[..., TextCodec]) -> None:
    assert rendered(make_codec(chat_template="old", template_file="new")) == "new"


def test_a_template_may_ask_for_the_date_and_for_json(make_codec: Callable[..., TextCodec]) -> None:
    template = "{{ strftime_now('%Y') | length }}{{ messages | tojson }}"
    made = make_codec(chat_template=template)
    assert rendered(made, "ä") == '4[{"role": "user", "content": "ä"}]'


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no such role') }}",
        "{{ messages[0].content.no.such }}",
        "{{ ''.__class__.__mro__ }}",  # templates are not trusted
        "{{ messages.append(1) }}",
    ],
)
def test_an_error_or_a_forbidden_operation_of_a_template_is_a_refusal(
    make_codec: Callable[..., TextCodec], template: str
) -> None:
    with pytest.raises(Refusal, match=r"chat\.messages: the chat template refuses them"):
        rendered(make_codec(chat_template=template))


def test_the_text_of_a_message_in_a_templates_error_is_cut(make_codec: Callable[..., TextCodec]) -> None:
    template = "{{ raise_exception('no ' + messages[0].content) }}"
    with pytest.raises(Refusal, match="no xxx") as raised:
        rendered(make_codec(chat_template=template), "x" * 1_000_000)
    assert len(raised.value.message) < 400


def test_an_error_names_the_file_that_a_checkpoint_lacks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json"):
        TextCodec(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="not a JSON object"):
        TextCodec(tmp_path)
    (tmp_path / "config.json").write_text('{"vocab_size": 5}')
    (tmp_path / "tokenizer.json").write_text('{"version": 3}')
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        TextCodec(tmp_path)
