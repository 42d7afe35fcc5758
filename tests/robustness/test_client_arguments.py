"""What users of other clients hand to ``Client.generate``: it works, or it is an error that names it.

Messages are those of ``transformers.PreTrainedTokenizer.apply_chat_template`` and of OpenAI's client.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer

from albireo.client import Client, request_for
from albireo.models import TINY

TURNS = [{"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": "5"}]


class Text(str):
    """As some libraries have it."""


def messages(prompt: Any) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in request_for(prompt).chat.messages]


def test_the_messages_that_transformers_takes_go_out_as_they_are() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    turns = [*TURNS, {"role": "user", "content": "And 4?"}]
    ours = [{"role": role, "content": content} for role, content in messages(turns)]
    assert tokenizer.apply_chat_template(ours, tokenize=False) == tokenizer.apply_chat_template(
        turns, tokenize=False
    )


@pytest.mark.parametrize(
    "prompt",
    [
        TURNS,
        tuple(TURNS),
        iter(TURNS),
        [tuple(turn.values()) for turn in TURNS],
        [TURNS[0], ("assistant", "5")],
        [{"content": Text(turn["content"]), "role": Text(turn["role"])} for turn in TURNS],
    ],
)
def test_every_way_to_write_the_messages_is_the_same_conversation(prompt: Any) -> None:
    assert messages(prompt) == [("user", "What is 2 + 3?"), ("assistant", "5")]


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        (None, "prompt"),
        (7, "prompt"),
        (b"bytes", "prompt"),
        (TURNS[0], "prompt"),
        (["hi"], r"messages\[0\]"),
        (["user", "hi"], r"messages\[0\]"),
        ([TURNS[0], "hi"], r"messages\[1\]"),
        ([("user",)], r"messages\[0\]"),
        ([("user", "a", "b")], r"messages\[0\]"),
        ([{"role": "user"}], r"messages\[0\].*'role'"),
        ([{"role": "user", "content": "x", "name": "bob"}], r"messages\[0\].*'name'"),
        ([{"role": "assistant", "content": None}], r"messages\[0\]\.content.*None"),
        ([{"role": "user", "content": [{"type": "text", "text": "x"}]}], r"messages\[0\]\.content.*list"),
        ([{"role": 1, "content": "x"}], r"messages\[0\]\.role.*int"),
        ([SimpleNamespace(role="user", content="x")], r"messages\[0\]"),
        ([1.5], r"messages\[0\]"),
        ([True], "ids"),
        ([1, "a"], "ids"),
        ([1, None], "ids"),
    ],
)
def test_any_other_prompt_is_a_type_error_that_says_where(prompt: Any, named: str) -> None:
    with pytest.raises(TypeError, match=named):
        request_for(prompt)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_completion_tokens", 5),
        ("messages", TURNS),
        ("stream", True),
        ("max_tokens", "5"),
        ("max_tokens", 5.0),
        ("max_tokens", True),
        ("logprobs", True),
        ("temperature", "0"),
        ("stop", 5),
        ("stop", ["a", None]),
        ("stop", [b"a"]),
        ("stop_token_ids", 5),
        ("logit_bias", {"50256": -100}),
        ("logit_bias", [5]),
        ("ignore_eos", 1),
        ("request_id", 5),
        ("tenant", b"x"),
        ("priority", 1.5),
    ],
)
def test_an_option_that_is_unknown_or_of_a_wrong_type_is_a_type_error_with_its_name(
    option: str, value: Any
) -> None:
    with pytest.raises(TypeError, match=option):
        request_for("hi", **{option: value})


@pytest.mark.parametrize(
    ("prompt", "options", "named"),
    [
        ([], {}, "prompt"),
        ("\udcff", {}, "prompt"),
        ([("user", "\udcff")], {}, "content"),
        ([-1], {}, "ids"),
        ([2**32], {}, "ids"),
        ("hi", {"stop": ["\udcff"]}, "stop"),
        ("hi", {"seed": -1}, "seed"),
    ],
)
def test_a_value_that_no_field_holds_is_a_value_error_with_its_name(
    prompt: Any, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        request_for(prompt, **options)


def test_the_error_comes_from_the_call_and_not_from_a_later_line() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(TypeError, match="bogus"):
        client.generate("hi", bogus=1)


def test_raw_text_is_a_str() -> None:
    with pytest.raises(TypeError, match="raw"):
        request_for(TURNS, raw=True)
