"""What the client library makes of its arguments; its calls are tested against the live stack."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.client import request_for


def test_each_kind_of_prompt_goes_into_its_field() -> None:
    assert request_for("hi").chat.messages[0].content == "hi"
    assert request_for("hi", raw=True).text == "hi"
    assert list(request_for([5, 6]).token_ids.ids) == [5, 6]
    turns = request_for([("user", "a"), ("assistant", "b")]).chat.messages
    assert [(turn.role, turn.content) for turn in turns] == [("user", "a"), ("assistant", "b")]


def test_options_find_their_message_and_none_is_left_out() -> None:
    request = request_for("hi", request_id="r", priority=-2, tenant="t", top_k=0, max_tokens=None, stop=["x"])
    assert (request.request_id, request.priority, request.tenant) == ("r", -2, "t")
    assert list(request.sampling.stop) == ["x"]
    assert request.sampling.HasField("top_k")
    assert not request.sampling.HasField("max_tokens")


def test_one_stop_string_is_one_and_not_its_characters() -> None:
    assert list(request_for("hi", stop="abc").sampling.stop) == ["abc"]
    assert list(request_for("hi", stop=("ab", "c")).sampling.stop) == ["ab", "c"]


def test_every_sampling_option_finds_its_field() -> None:
    options: dict[str, Any] = {
        "n": 3,
        "logit_bias": {5: -1.0},
        "allowed_token_ids": [5, 6],
        "bad_token_ids": [6],
    }
    sampling = request_for("hi", **options, typical_p=0.5, prompt_logprobs=0).sampling
    assert (sampling.n, dict(sampling.logit_bias), sampling.typical_p) == (3, {5: -1.0}, 0.5)
    assert (list(sampling.allowed_token_ids), list(sampling.bad_token_ids)) == ([5, 6], [6])
    assert sampling.HasField("prompt_logprobs")


@pytest.mark.parametrize("options", [{"bogus": 1}, {"max_tokens": -1}, {"seed": 2**64}])
def test_what_no_field_takes_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"bogus|out of range"):
        request_for("hi", **options)
