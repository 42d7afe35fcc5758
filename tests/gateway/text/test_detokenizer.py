"""Text deltas are exact: concatenated they are what the tokenizer decodes after the prompt."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders

from albireo.models import TINY
from gateway.text.detokenizer import Detokenizer, Vocabulary
from tests.gateway.tokenizers_made import CORPUS, MAKERS, id_of, no_decoder, word_piece

TOKENIZERS = {name: make() for name, make in MAKERS.items()}
TOKENIZERS |= {"word_piece": word_piece(), "no_decoder": no_decoder()}
TOKENIZERS["tiny"] = Tokenizer.from_file(str(TINY / "tokenizer.json"))
VOCABULARIES = {name: Vocabulary(tokenizer) for name, tokenizer in TOKENIZERS.items()}
REPLACEMENT = "\ufffd"

every = pytest.mark.parametrize("name", VOCABULARIES)


TEXTS = st.text(st.sampled_from("aé日🦊👩\u200d \n ▁x") | st.characters(codec="utf-8"), max_size=25)


def decode(name: str, ids: list[int]) -> str:
    text: str = TOKENIZERS[name].decode(ids, skip_special_tokens=True)
    return text


def runs(name: str, ids: list[int]) -> list[bytes]:
    """Runs of byte-fallback tokens; what has no text does not end a run."""
    if name != "byte_fallback":
        return []
    found = [b""]
    for token in ids:
        text = TOKENIZERS[name].id_to_token(token)
        if text is None or token in special_ids(name):
            continue
        if re.fullmatch("<0x..>", text):
            found[-1] += bytes.fromhex(text[3:5])
        elif found[-1]:
            found.append(b"")
    return found


def spoiled(name: str, ids: list[int]) -> bool:
    """Whether a run of byte tokens has a wrong byte, for which the library takes back the whole run."""
    return any(run.decode("utf-8", "replace").encode() != run for run in runs(name, ids))


def begins_with_dropped_space(name: str, ids: list[int]) -> bool:
    """Whether the first text is a byte token's space, which the decoder drops at the beginning of a text."""
    texts = [TOKENIZERS[name].id_to_token(token) for token in ids if token not in special_ids(name)]
    first = next((text for text in texts if text is not None), "")
    return first == "<0x20>" and VOCABULARIES[name].drops_space


def any_ids(name: str) -> st.SearchStrategy[list[int]]:
    """Random ids, some above the vocabulary: checkpoints pad theirs, and a model may draw such a row."""
    size = TOKENIZERS[name].get_vocab_size()
    return st.lists(st.integers(0, size + 8), max_size=60)


def real_ids(name: str, text: str) -> list[int]:
    ids: list[int] = TOKENIZERS[name].encode(text, add_special_tokens=False).ids
    return ids


def special_ids(name: str) -> list[int]:
    added = TOKENIZERS[name].get_added_tokens_decoder()
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
        if not spoiled(name, ids):
            assert decode(name, ids).startswith(text)  # what was given out is never taken back
    text += detokenizer.flush()
    if spoiled(name, ids):
        whole = "".join(run.decode("utf-8", "ignore") for run in runs(name, ids))
        if begins_with_dropped_space(name, ids):
            whole = whole.removeprefix(" ")
        assert set(whole) <= set(text)  # characters that were complete stay
        assert len(text.replace(REPLACEMENT, "")) >= len(decode(name, ids).replace(REPLACEMENT, ""))
    else:
        assert text == decode(name, ids)


def test_a_leading_space_is_dropped_also_before_an_invalid_byte() -> None:
    tokenizer = TOKENIZERS["byte_fallback"]
    ids = [id_of(tokenizer, name) for name in ("<0x20>", "<0x80>")]
    detokenizer = Detokenizer(VOCABULARIES["byte_fallback"])
    assert detokenizer.push(ids) + detokenizer.flush() == REPLACEMENT


@every
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_text_continues_its_prompt(name: str, data: st.DataObject) -> None:
    """What the library decodes of both, after what it decodes of the prompt: with its leading space."""
    prompt, ids = data.draw(any_ids(name)), data.draw(any_ids(name))
    before = decode(name, prompt)
    detokenizer = Detokenizer(VOCABULARIES[name], prompt)
    text = "".join(detokenizer.push([token]) for token in ids) + detokenizer.flush()
    if not spoiled(name, prompt + ids) and not before.endswith(REPLACEMENT):
        assert before + text == decode(name, prompt + ids)


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback", "tiny"])
def test_a_character_that_the_prompt_begins_comes_when_it_is_complete(name: str) -> None:
    ids = real_ids(name, "a🦩b")
    for cut in range(1, len(ids)):
        detokenizer = Detokenizer(VOCABULARIES[name], ids[:cut])
        text = "".join(detokenizer.push([token]) for token in ids[cut:])
        assert text in ("🦩b", "b", "")
        assert (decode(name, ids[:cut]).rstrip(REPLACEMENT) + text).strip() == "a🦩b"


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback", "tiny"])
def test_wrong_bytes_stream_in_linear_time(name: str) -> None:
    vocabulary = VOCABULARIES[name]
    [wrong] = [t for t in range(TOKENIZERS[name].get_vocab_size()) if vocabulary.piece(t) == b"\x80"]
    detokenizer = Detokenizer(vocabulary)
    assert [detokenizer.push([wrong]) for _ in range(3)] == [REPLACEMENT] * 3
    began = time.process_time()
    for _ in range(20_000):
        detokenizer.push([wrong])
    assert time.process_time() - began < 1  # 8,000 took 5 s when each looked at all before it


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
    ids = real_ids(name, " ".join(CORPUS))
    detokenizer, given_out = Detokenizer(VOCABULARIES[name]), ""
    for count, token in enumerate(ids, 1):
        given_out += detokenizer.push([token])
        so_far = decode(name, ids[:count])
        if not so_far.endswith(REPLACEMENT):
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
def test_an_incomplete_character_is_withheld_until_the_end(name: str) -> None:
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
    beyond = TOKENIZERS["byte_fallback"].get_vocab_size() + 3
    silent = special_ids("byte_fallback")[0] if between == "special" else beyond
    first, *others = real_ids("byte_fallback", "🦩")[-4:]
    detokenizer = Detokenizer(VOCABULARIES["byte_fallback"])
    assert detokenizer.push([first, silent, *others]) == "🦩"


def test_complete_characters_of_bytes_come_at_once_and_stay() -> None:
    vocabulary = TOKENIZERS["byte_fallback"].get_vocab()
    good, wrong = vocabulary["<0x41>"], vocabulary["<0x81>"]
    detokenizer = Detokenizer(VOCABULARIES["byte_fallback"])
    assert detokenizer.push([good]) == "A"
    assert detokenizer.push([wrong]) + detokenizer.flush() == REPLACEMENT


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


@pytest.mark.parametrize("decoder", [decoders.CTC(), decoders.BPEDecoder(), decoders.Strip(" ", 2, 0)])
def test_a_decoder_that_depends_on_other_tokens_is_refused(decoder: decoders.Decoder) -> None:
    tokenizer = no_decoder()
    tokenizer.decoder = decoder
    with pytest.raises(ValueError, match=r"tokenizer\.json: decoder .* cannot be streamed"):
        Vocabulary(tokenizer)
