"""No text has more bytes than its ids times ``longest_token_bytes``, and it is None if there is no bound."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from albireo.models import TINY
from bench.tokenizers import corpus
from gateway.text.token_bytes import longest_token_bytes
from tests.gateway.tokenizers_made import byte_fallback, byte_level, metaspace


def with_forms() -> Tokenizer:
    """As Qwen: the normal form takes fewer bytes than the text."""
    tokenizer = byte_level()
    tokenizer.normalizer = normalizers.NFKC()
    return tokenizer


BOUNDED = {
    "byte_level": byte_level(),
    "byte_fallback": byte_fallback(),
    "metaspace": metaspace(),  # each unknown character is a token of its own
    "NFKC": with_forms(),
    "tiny": Tokenizer.from_file(str(TINY / "tokenizer.json")),
}
DENSE = ["\U0001d7d9", "\U0001d400", "\u1112\u1161\u11ab", "\U0001d6c2\u0313\u0301\u0345", "\uff21", "\u212b"]
"""What normal forms make most of the bytes of."""


@pytest.mark.parametrize("name", BOUNDED)
@settings(max_examples=200, deadline=None)
@given(text=st.lists(st.sampled_from(DENSE) | st.text(max_size=5), max_size=20).map("".join))
def test_no_text_has_more_bytes(name: str, text: str) -> None:
    tokenizer = BOUNDED[name]
    most = longest_token_bytes(tokenizer)
    assert most is not None
    assert len(text.encode()) <= most * len(tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize("name", BOUNDED)
def test_the_bound_is_at_most_four_times_the_longest_token(name: str) -> None:
    """A few times what texts have, not megabytes."""
    tokenizer = BOUNDED[name]
    longest = max(len(piece.encode()) for piece in tokenizer.get_vocab())
    assert (longest_token_bytes(tokenizer) or 0) <= 4 * longest
    for text in corpus.texts([]):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert len(text.encode()) <= (longest_token_bytes(tokenizer) or 0) * len(ids)


def changed(change: Callable[[Tokenizer], object]) -> Tokenizer:
    tokenizer = byte_level()
    change(tokenizer)
    return tokenizer


def drop_a_byte(tokenizer: Tokenizer) -> None:
    letters = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet())[1:])}
    tokenizer.model = models.BPE(vocab=letters, merges=[])


UNBOUNDED: dict[str, Callable[[Tokenizer], object]] = {
    "white space is stripped": lambda t: setattr(t, "normalizer", normalizers.Strip()),
    "white space is collapsed": lambda t: setattr(t, "normalizer", normalizers.Replace(Regex(" +"), " ")),
    "accents are dropped": lambda t: setattr(t, "normalizer", normalizers.StripAccents()),
    "a character is dropped": lambda t: setattr(t, "normalizer", normalizers.Replace("x", "")),
    "white space splits": lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Whitespace()),
    "an added token swallows it": lambda t: t.add_tokens([AddedToken("<mask>", lstrip=True)]),
    "a byte has no token": drop_a_byte,
    "words are unknown as a whole": lambda t: setattr(t, "model", models.WordLevel({"a": 0}, unk_token="a")),
    "unknown ones are fused": lambda t: setattr(
        t, "model", models.BPE(vocab={"a": 0}, merges=[], unk_token="a", fuse_unk=True)
    ),
}


@pytest.mark.parametrize("name", UNBOUNDED)
def test_a_tokenizer_with_tokens_for_texts_of_any_length_has_no_bound(name: str) -> None:
    tokenizer = changed(UNBOUNDED[name])
    assert longest_token_bytes(tokenizer) is None
