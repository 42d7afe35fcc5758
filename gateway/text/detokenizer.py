"""Token ids to exact text deltas."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from albireo.checkpoint.files import CheckpointError
from gateway.text.pretrained import state_of
from gateway.text.token_bytes import longest_name_bytes

Piece = bytes | str | None
"""What an id adds to a text that has begun: bytes of characters, characters, or nothing."""

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_BY_TOKEN = ("Replace", "ByteFallback", "Fuse", "Strip", "Metaspace", "WordPiece")
"""Decoders that decode each token by itself, whatever is around it, bytes excepted."""
LONGEST_CHARACTER = 4
REPLACEMENT = "\ufffd"


def _replace_each(error: UnicodeError) -> tuple[str, int]:
    """As decoders with a byte fallback do: one replacement character for each wrong byte."""
    assert isinstance(error, UnicodeDecodeError)
    return REPLACEMENT * (error.end - error.start), error.end


codecs.register_error("albireo.replace_each", _replace_each)


class Vocabulary:
    """What the detokenizers of one tokenizer share: the text of each id."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises CheckpointError for a decoder whose text cannot be told token by token."""
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self.special = frozenset(index for index, token in added.items() if token.special)
        decoder = state_of(tokenizer.decoder)
        kinds = _kinds(decoder)
        _check(kinds)
        self._bytes = _byte_of_letter() if kinds == ["ByteLevel"] else {}
        self.falls_back = "ByteFallback" in kinds
        # A byte-level decoder makes one replacement character of what can begin no character (Unicode's
        # "maximal subpart"), as Rust's from_utf8_lossy and Python's "replace" do.
        self.errors = "replace" if self._bytes else "albireo.replace_each"
        # Decoders drop a space that their tokenizer puts before every text.
        self.drops_space = self.falls_back and tokenizer.decoder.decode(["<0x20>"]) == ""
        self._anchor = None if self._bytes else self._some_text()
        self._pieces: dict[int, Piece] = {}
        self.longest_text = longest_name_bytes(tokenizer)
        """Bytes of the longest text of a token, at most."""

    def piece(self, token: int) -> Piece:
        """What an id adds to a text; None where it is in no vocabulary. Special ids have text here too."""
        if token not in self._pieces:
            self._pieces[token] = self._read(token)
        return self._pieces[token]

    def first(self, token: int) -> str:
        """The text of an id with nothing before it."""
        text: str = self._tokenizer.decode([token], skip_special_tokens=False)
        return text

    def text(self, token: int) -> str:
        """The text of an id by itself, inside of a text."""
        piece = self.piece(token)
        return piece.decode("utf-8", self.errors) if isinstance(piece, bytes) else piece or ""

    def _read(self, token: int) -> Piece:
        name = self._tokenizer.id_to_token(token)
        if name is None:
            return None
        if self._bytes:
            try:
                return bytes(self._bytes[letter] for letter in name)
            except KeyError:  # an added token that is written as it is
                return bytes(name.encode())
        if self.falls_back and (byte := _BYTE_TOKEN.fullmatch(name)):
            return bytes.fromhex(byte[1])
        if self._anchor is None:
            return self.first(token)
        anchor, text = self._anchor
        both: str = self._tokenizer.decode([anchor, token], skip_special_tokens=False)
        return both[len(text) :]

    def _some_text(self) -> tuple[int, str] | None:
        """An id that has text, to be put before others, and its text."""
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=False)
        token = min((token for name, token in vocabulary.items() if name.isalnum()), default=None)
        return None if token is None else (token, self.first(token))


class Detokenizer:
    """Text of one stream, the continuation of its prompt's.

    The deltas, concatenated, are what transformers decodes of prompt and outputs, after what it decodes of
    the prompt, special tokens skipped. A character is given out as soon as it is complete, and one that the
    prompt began and the outputs complete with them. One thing differs, and must: transformers takes
    back all characters of a run of byte-fallback tokens in which one byte is wrong, which a stream cannot.
    """

    def __init__(self, vocabulary: Vocabulary, prompt: Sequence[int] = ()) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")(vocabulary.errors)
        self._begun = False  # whether there is text, of the prompt or ours
        self._owed = ""  # what wrong bytes at the prompt's end become, which is the prompt's text
        self._take_up(prompt)

    def push(self, ids: Iterable[int]) -> str:
        """The text that ``ids`` complete. Costs the same however long the text is already."""
        vocabulary, parts = self._vocabulary, []
        for token in ids:
            if token in vocabulary.special:
                continue
            piece = vocabulary.piece(token)
            if isinstance(piece, bytes):
                parts.append(self._of_bytes(self._decoder.decode(piece)))
            elif piece:
                parts.append(self.flush())
                parts.append(piece if self._begun else vocabulary.first(token))
                self._begun = True
        return "".join(parts)

    def flush(self) -> str:
        """What is left when no more bytes come: an unfinished character, as replacement characters."""
        return self._of_bytes(self._decoder.decode(b"", final=True))

    def _of_bytes(self, text: str) -> str:
        """Text that bytes became, as it follows what was before."""
        if not text:
            return ""
        if not self._begun and self._vocabulary.drops_space:
            text = text.removeprefix(" ")
        self._begun = True
        text, self._owed = text.removeprefix(self._owed), ""
        return text

    def _take_up(self, prompt: Sequence[int]) -> None:
        """Goes on where the prompt ends, perhaps inside a character."""
        end = b""
        for token in reversed(prompt):
            piece = None if token in self._vocabulary.special else self._vocabulary.piece(token)
            if not piece:
                continue
            self._begun = True
            if isinstance(piece, str):
                break
            end = piece + end
            if len(end) >= LONGEST_CHARACTER:
                break
        self._decoder.decode(end)
        pending, _ = self._decoder.getstate()
        self._owed = pending.decode("utf-8", self._vocabulary.errors)


def _kinds(decoder: dict[str, Any] | None) -> list[str]:
    """The decoders that text goes through."""
    if decoder is None:
        return []
    if decoder["type"] == "Sequence":
        return [kind for part in decoder["decoders"] for kind in _kinds(part)]
    if decoder["type"] == "Strip" and (decoder["start"] > 1 or decoder["stop"]):
        return ["Strip of more than one character"]
    return [decoder["type"]]


def _check(kinds: list[str]) -> None:
    whole = kinds[kinds.index("Fuse") + 1 :] if "Fuse" in kinds else []
    known = kinds == ["ByteLevel"] or all(kind in _BY_TOKEN for kind in kinds)
    if not known or any(kind != "Strip" for kind in whole):
        raise CheckpointError(f"tokenizer.json: decoder {' + '.join(kinds)}: its text cannot be streamed")


def _byte_of_letter() -> dict[str, int]:
    """The byte that each letter of byte-level tokens stands for.

    As GPT-2's ``bytes_to_unicode``: printable bytes of Latin-1 are themselves, the others follow from 256 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
    assert table.keys() == set(ByteLevel.alphabet())
    return table
