"""Chat templates see what transformers gives them, and whatever they raise is about the messages."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from transformers import AutoTokenizer

from albireo.v1 import inference_pb2 as api
from gateway.calls.refusal import Refusal
from gateway.text.pretrained import one_line
from gateway.text.text_codec import TextCodec
from tests.gateway.conftest import Backend, serving
from tests.robustness.checkpoints_made import OPTIONS, chat, checkpoint

TEMPLATES = {
    "tools": "{% if tools is none and documents is none %}none{% else %}{{ tools | length }}{% endif %}",
    "special tokens": "{{ bos_token }}{{ eos_token }}{{ unk_token }}{{ pad_token }}",
    "a token of its own": "{{ image_token }}{{ no_such_token }}",
    "date": "{{ strftime_now('%Y-%m') }}",
    "json": "{{ messages | tojson(indent=2) }}{{ messages | tojson(separators=(',', ':'), sort_keys=True) }}",
    "json as it is": "{{ messages | tojson(ensure_ascii=True) }}{{ '<b>' | tojson }}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "break": "{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
    "continue": "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m }}{% endfor %}",
    "blocks": "  {% if true %}\n  x\n  {% endif %}\n{{- add_generation_prompt }}\n",
    "namespace": "{% set n = namespace(a=1) %}{% for m in messages %}{% set n.a = 2 %}{% endfor %}{{ n.a }}",
}
OWN = {**OPTIONS, "pad_token": "<|end|>", "unk_token": "<|user|>", "image_token": "<|bos|>"}
TURNS = ("<b>ä</b> 'x'", "yes\n", " and?")


def same(directory: Path) -> None:
    messages = chat(*TURNS)
    theirs = AutoTokenizer.from_pretrained(directory).apply_chat_template(
        [{"role": m.role, "content": m.content} for m in messages],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert TextCodec(directory).encode_chat(messages, "chat") == theirs


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_gives_the_ids_of_transformers(name: str, tmp_path: Path) -> None:
    same(checkpoint(tmp_path, tokenizer_config__json=OWN, chat_template__jinja=TEMPLATES[name]))


def test_of_several_templates_the_default_is_taken(tmp_path: Path) -> None:
    named = [
        {"name": "tool_use", "template": "no"},
        {"name": "default", "template": "{{ messages[0].content }}"},
    ]
    same(checkpoint(tmp_path / "listed", tokenizer_config__json={**OPTIONS, "chat_template": named}))
    (tmp_path / "files" / "additional_chat_templates").mkdir(parents=True)
    (tmp_path / "files" / "additional_chat_templates" / "tool_use.jinja").write_text("no")
    same(checkpoint(tmp_path / "files", chat_template__jinja="{{ messages[1].content }}"))


ERRORS = {
    "TypeError": "{{ messages[0].content + 1 }}",
    "ZeroDivisionError": "{{ 1 // (messages | length - 1) }}",
    "UndefinedError": "{{ messages[0].content.no.such }}",
    "TemplateError": "{{ raise_exception('roles') }}",
    "OverflowError": "{% for i in range(10 ** 9) %}x{% endfor %}",
    "RecursionError": "{% macro again(x) %}{{ again(x) }}{% endmacro %}{{ again(messages) }}",
    "ValueError": "{{ 'a'.index(messages[0].content) }}",
    "KeyError": "{{ '%(a)s' % {} }}",
    "SecurityError": "{{ ''.__class__.__mro__ }}",
}


@pytest.mark.parametrize("name", ERRORS)
def test_any_error_in_a_template_is_a_refusal_of_the_messages(name: str, tmp_path: Path) -> None:
    made = TextCodec(checkpoint(tmp_path, chat_template__jinja=ERRORS[name]))
    refusal = refusal_of(made, chat("hi"))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.message.startswith("chat.messages: the chat template refuses them: ")
    assert len(refusal.message) < 400


def test_a_template_with_a_syntax_error_is_logged_once_and_texts_are_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = TextCodec(checkpoint(tmp_path, tokenizer_config__json=None, chat_template__jinja="{% for %}"))
    ids = AutoTokenizer.from_pretrained(tmp_path)("hello")["input_ids"]
    for _ in range(2):
        refusal = refusal_of(made, chat("hi"))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.message.startswith("chat.messages: the checkpoint's chat template has an error: ")
        assert "TemplateSyntaxError" in refusal.message
    assert made.encode("hello") == ids
    assert not made.has_chat_template
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith(f"{tmp_path}: chats are refused")


def refusal_of(made: TextCodec, messages: list[api.ChatMessage]) -> Refusal:
    """Fails for any other outcome, without a traceback: pytest parses the source of each of its frames, and a
    template that calls itself makes a thousand; Python 3.11 then may end pytest with a SystemError."""
    problem = "not refused"
    try:
        made.encode_chat(messages, "chat")
    except Refusal as refusal:
        return refusal
    except Exception as error:  # noqa: BLE001  (whatever it is, it is the failure)
        problem = one_line(error)
    pytest.fail(problem, pytrace=False)


async def test_an_error_in_a_template_leaves_no_traceback(
    tmp_path: Path, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    model = checkpoint(tmp_path, chat_template__jinja=ERRORS["TypeError"])
    async with serving(backend, model=model) as served:
        call = served.inference.Tokenize(api.TokenizeRequest(chat=api.Chat(messages=chat("hi"))))
        async with asyncio.timeout(10):
            with pytest.raises(grpc.aio.AioRpcError, match=r"chat\.messages: ") as raised:
                await call
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Traceback" not in caplog.text


def test_threads_render_and_tokenize_at_the_same_time(tmp_path: Path) -> None:
    """As gateways do: each conversation gets the ids that it gets alone."""
    made = TextCodec(checkpoint(tmp_path, chat_template__jinja=TEMPLATES["generation"]))
    conversations = [chat(f"number {n}", "yes" * n) for n in range(40)]
    alone = [made.encode_chat(messages, "chat") for messages in conversations]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert list(pool.map(lambda messages: made.encode_chat(messages, "chat"), conversations)) == alone
