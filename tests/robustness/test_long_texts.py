"""A text that is far too long costs what the context costs, not what the text would; all others get the
ids that transformers gives them."""

from __future__ import annotations

import time

import pytest
from transformers import AutoTokenizer

from albireo.models import TINY
from gateway.calls.refusal import Refusal
from gateway.text.text_codec import FIRST_CHARACTERS, TextCodec

TEXTS = {"digits": "1", "spaces": " ", "words": "a fox ", "no words": "\u00e9\u4e16\U0001f98a"}
CODEC = TextCodec(TINY)


@pytest.mark.parametrize("piece", TEXTS.values(), ids=TEXTS)
def test_a_text_that_is_far_too_long_is_refused_after_its_beginning(piece: str) -> None:
    text = piece * (4_000_000 // len(piece))
    began = time.process_time()
    with pytest.raises(Refusal, match=r"^text: its first \d+ characters have \d+ tokens; at most 1000$"):
        CODEC.encode(text, max_ids=1000)
    assert time.process_time() - began < 0.5  # all of it takes seconds


@pytest.mark.parametrize("piece", TEXTS.values(), ids=TEXTS)
def test_a_long_text_that_fits_is_tokenized_as_transformers_does(piece: str) -> None:
    text = piece * (3 * FIRST_CHARACTERS // len(piece))
    expected = AutoTokenizer.from_pretrained(TINY)(text).input_ids
    assert CODEC.encode(text, max_ids=len(expected)) == expected
