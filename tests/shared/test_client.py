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
    request = request_for("hi", request_id="r", priority=-2, top_k=0, max_tokens=None, stop=["x"])
    assert (request.request_id, request.priority, list(request.sampling.stop)) == ("r", -2, ["x"])
    assert request.sampling.HasField("top_k")
    assert not request.sampling.HasField("max_tokens")


@pytest.mark.parametrize("options", [{"bogus": 1}, {"max_tokens": -1}, {"seed": 2**64}])
def test_what_no_field_takes_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"bogus|out of range"):
        request_for("hi", **options)
