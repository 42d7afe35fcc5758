"""Text deltas are exact: whatever the ids, concatenated they are the tokenizer's own decoding."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from gateway.detokenizer import Detokenizer, Vocabulary
from tests.gateway.tokenizers_made import CORPUS, MAKERS

TINY = Path(__file__).resolve().parents[2] / "albireo" / "models" / "tiny" / "tokenizer.json"
VOCABULARIES = {name: Vocabulary(make()) for name, make in MAKERS.items()}
VOCABULARIES["tiny"] = Vocabulary(Tokenizer.from_file(str(TINY)))
REPLACEMENT = "\ufffd"

every = pytest.mark.parametrize("name", VOCABULARIES)


TEXTS = st.text(st.sampled_from("aé日🦊👩\u200d \n ▁x") | st.characters(codec="utf-8"), max_size=25)


def decode(name: str, ids: list[int]) -> str:
    text: str = VOCABULARIES[name].tokenizer.decode(ids, skip_special_tokens=True)
    return text


def any_ids(name: str) -> st.SearchStrategy[list[int]]:
    """Random ids, some above the vocabulary: checkpoints pad theirs, and a model may draw such a row."""
    size = VOCABULARIES[name].tokenizer.get_vocab_size()
    return st.lists(st.integers(0, size + 8), max_size=60)


def real_ids(name: str, text: str) -> list[int]:
    ids: list[int] = VOCABULARIES[name].tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def special_ids(name: str) -> list[int]:
    added = VOCABULARIES[name].tokenizer.get_added_tokens_decoder()
    return sorted(index for index, token in added.items() if token.special)


@every
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_deltas_of_any_ids_add_up_to_the_decoding(name: str, data: st.DataObject) -> None:
    ids = data.draw(any_ids(name))
    detokenizer, at, text = Detokenizer(VOCABULARIES[name]), 0, ""
    while at < len(ids):
        count = data.draw(st.integers(1, 5))
        text += detokenizer.push(ids[at : at + count])
        at += count
        assert decode(name, ids).startswith(text)  # what was given out is never taken back
    assert text + detokenizer.flush() == decode(name, ids)


@every
@settings(max_examples=150, deadline=None)
@given(
    text=st.text(st.sampled_from("aé日🦊👩‍ \n ▁x") | st.characters(codec="utf-8"), max_size=25),
    data=st.data(),
)
def test_no_delta_of_real_text_ends_inside_a_character(name: str, text: str, data: st.DataObject) -> None:
    ids = real_ids(name, text.replace(REPLACEMENT, ""))
    special = special_ids(name)
    for at in data.draw(st.lists(st.integers(0, len(ids)), max_size=3)):
        ids.insert(at, data.draw(st.sampled_from(special)))
    detokenizer = Detokenizer(VOCABULARIES[name])
    deltas = [detokenizer.push([token]) for token in ids]
    assert not any(REPLACEMENT in delta for delta in deltas)
    assert "".join(deltas) + detokenizer.flush() == decode(name, ids)


@every
def test_text_comes_as_soon_as_its_characters_are_complete(name: str) -> None:
    vocabulary = VOCABULARIES[name]
    ids = real_ids(name, " ".join(CORPUS))
    detokenizer, given_out = Detokenizer(vocabulary), ""
    for count, token in enumerate(ids, 1):
        given_out += detokenizer.push([token])
        so_far = decode(name, ids[:count])
        # A run of byte-fallback tokens can still turn out to be wrong as a whole.
        if token not in vocabulary.bytes and not so_far.endswith(REPLACEMENT):
            assert given_out == so_far


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback", "tiny"])
def test_an_emoji_split_over_tokens_comes_whole(name: str) -> None:
    ids = real_ids(name, "a🦩b")  # not in the corpus
    assert len(ids) > 4
    detokenizer = Detokenizer(VOCABULARIES[name])
    deltas = [delta for token in ids if (delta := detokenizer.push([token]))]
    assert "".join(deltas).strip() == "a🦩b"
    assert not any(REPLACEMENT in delta for delta in deltas)


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback", "tiny"])
def test_an_unfinished_character_is_held_until_the_end(name: str) -> None:
    ids = real_ids(name, "a🦩")[:-1]
    detokenizer = Detokenizer(VOCABULARIES[name])
    pushed = "".join(detokenizer.push([token]) for token in ids)
    assert pushed.strip() == "a"
    rest = detokenizer.flush()
    assert set(rest) == {REPLACEMENT}
    assert pushed + rest == decode(name, ids)
    assert detokenizer.flush() == ""


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback", "tiny"])
def test_a_special_token_inside_a_character_does_not_break_it(name: str) -> None:
    ids = real_ids(name, "🦩")
    ids.insert(len(ids) - 1, special_ids(name)[0])
    detokenizer = Detokenizer(VOCABULARIES[name])
    text = detokenizer.push(ids) + detokenizer.flush()
    assert text.strip() == "🦩"


@pytest.mark.parametrize("between", ["special", "padding"])
def test_ids_without_text_do_not_end_a_run_of_bytes(between: str) -> None:
    tokenizer = VOCABULARIES["byte_fallback"].tokenizer
    vocabulary = tokenizer.get_vocab()
    good, wrong = vocabulary["<0x41>"], vocabulary["<0x81>"]
    silent = special_ids("byte_fallback")[0] if between == "special" else tokenizer.get_vocab_size() + 3
    detokenizer = Detokenizer(VOCABULARIES["byte_fallback"])
    assert detokenizer.push([good, silent]) == ""  # the next byte may spoil the whole run, and does
    assert detokenizer.push([wrong]) + detokenizer.flush() == REPLACEMENT * 2


@every
def test_a_push_costs_the_same_however_long_the_stream_is(name: str) -> None:
    ids = real_ids(name, CORPUS[0] + " ")

    def seconds(tokens: int) -> float:
        stream = Detokenizer(VOCABULARIES[name])
        began = time.process_time()
        for index in range(tokens):
            stream.push([ids[index % len(ids)]])
        return time.process_time() - began

    short, long = (min(seconds(tokens) for _ in range(3)) for tokens in (1_000, 16_000))
    assert long < 16 * short * 4  # a quadratic one would take 256 times as long
