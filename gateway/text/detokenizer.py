"""Token ids to text, incrementally: the deltas of a stream join to the text that transformers decodes.

Each branch of a stream has a :class:`Detokenizer`, on the event loop; all share one :class:`Vocabulary`.
"""

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
"""What an id appends to a non-empty text: bytes of characters, characters, or nothing."""

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_BY_TOKEN = ("Replace", "ByteFallback", "Fuse", "Strip", "Metaspace", "WordPiece")
"""Decoders that decode each token independently of its neighbours, except for bytes."""
LONGEST_CHARACTER = 4
REPLACEMENT = "\ufffd"


def _replace_each(error: UnicodeError) -> tuple[str, int]:
    """One replacement character for each invalid byte, as decoders with a byte fallback do."""
    assert isinstance(error, UnicodeDecodeError)
    return REPLACEMENT * (error.end - error.start), error.end


codecs.register_error("albireo.replace_each", _replace_each)


class Vocabulary:
    """The text of each id of a tokenizer, shared by its detokenizers and computed on first use."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises CheckpointError for a decoder that cannot decode token by token."""
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self.special = frozenset(index for index, token in added.items() if token.special)
        decoder = state_of(tokenizer.decoder)
        kinds = _kinds(decoder)
        _check(kinds)
        self._bytes = _byte_of_letter() if kinds == ["ByteLevel"] else {}
        self.falls_back = "ByteFallback" in kinds
        # A byte-level decoder replaces each "maximal subpart" of an ill-formed sequence (Unicode, 3.9) by one
        # character, as Rust's from_utf8_lossy and Python's "replace" do.
        self.errors = "replace" if self._bytes else "albireo.replace_each"
        # Some tokenizers put a space before every text, which their decoders drop.
        self.drops_space = self.falls_back and tokenizer.decoder.decode(["<0x20>"]) == ""
        self._anchor = None if self._bytes else self._some_text()
        self._pieces: dict[int, Piece] = {}
        self.longest_text = longest_name_bytes(tokenizer)
        """An upper bound of the UTF-8 bytes of any token's text."""

    def piece(self, token: int) -> Piece:
        """What an id appends to a text; None if it is not in the vocabulary. Special ids have text here."""
        if token not in self._pieces:
            self._pieces[token] = self._read(token)
        return self._pieces[token]

    def first(self, token: int) -> str:
        """The text of an id at the beginning of a text."""
        text: str = self._tokenizer.decode([token], skip_special_tokens=False)
        return text

    def text(self, token: int) -> str:
        """The text of a single id inside a text."""
        piece = self.piece(token)
        return piece.decode("utf-8", self.errors) if isinstance(piece, bytes) else piece or ""

    def _read(self, token: int) -> Piece:
        name = self._tokenizer.id_to_token(token)
        if name is None:
            return None
        if self._bytes:
            try:
                return bytes(self._bytes[letter] for letter in name)
            except KeyError:  # an added token, whose name is its text
                return bytes(name.encode())
        if self.falls_back and (byte := _BYTE_TOKEN.fullmatch(name)):
            return bytes.fromhex(byte[1])
        if self._anchor is None:
            return self.first(token)
        anchor, text = self._anchor
        both: str = self._tokenizer.decode([anchor, token], skip_special_tokens=False)
        return both[len(text) :]

    def _some_text(self) -> tuple[int, str] | None:
        """An id with text, and its text. Decoded in front of another id, it puts that inside a text."""
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=False)
        token = min((token for name, token in vocabulary.items() if name.isalnum()), default=None)
        return None if token is None else (token, self.first(token))


class Detokenizer:
    """The text of one branch, as the continuation of the text of its prompt.

    The joined deltas are the text that transformers decodes from prompt and outputs, without special tokens,
    minus the text that it decodes from the prompt. A character is returned as soon as its last byte is known;
    one that begins in the prompt and ends in the outputs is returned with the outputs. There is one
    difference: in a run of byte-fallback tokens with an invalid byte, transformers replaces all characters of
    the run. A stream cannot, because it has sent the valid ones already.
    """

    def __init__(self, vocabulary: Vocabulary, prompt: Sequence[int] = ()) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")(vocabulary.errors)
        self._has_text = False  # whether the prompt or the outputs have text so far
        # What an incomplete character at the prompt's end became in the prompt's own text.
        self._prompt_rest = ""
        self._read_prompt_end(prompt)

    def push(self, ids: Iterable[int]) -> str:
        """The text that ``ids`` complete. The cost does not depend on the length of the text before."""
        vocabulary, parts = self._vocabulary, []
        for token in ids:
            if token in vocabulary.special:
                continue
            piece = vocabulary.piece(token)
            if isinstance(piece, bytes):
                parts.append(self._appended(self._decoder.decode(piece)))
            elif piece:
                parts.append(self.flush())
                parts.append(piece if self._has_text else vocabulary.first(token))
                self._has_text = True
        return "".join(parts)

    def flush(self) -> str:
        """The rest of a text that has ended: an incomplete character, as replacement characters."""
        return self._appended(self._decoder.decode(b"", final=True))

    def _appended(self, text: str) -> str:
        """Text decoded from bytes, without what belongs to the prompt's text already."""
        if not text:
            return ""
        if not self._has_text and self._vocabulary.drops_space:
            text = text.removeprefix(" ")
        self._has_text = True
        text, self._prompt_rest = text.removeprefix(self._prompt_rest), ""
        return text

    def _read_prompt_end(self, prompt: Sequence[int]) -> None:
        """Gives the decoder the bytes at the prompt's end, which may be those of an incomplete character."""
        end = b""
        for token in reversed(prompt):
            piece = None if token in self._vocabulary.special else self._vocabulary.piece(token)
            if not piece:
                continue
            self._has_text = True
            if isinstance(piece, str):
                break
            end = piece + end
            if len(end) >= LONGEST_CHARACTER:
                break
        self._decoder.decode(end)
        pending, _ = self._decoder.getstate()
        self._prompt_rest = pending.decode("utf-8", self._vocabulary.errors)


def _kinds(decoder: dict[str, Any] | None) -> list[str]:
    """Types of the decoders that are applied, in order."""
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

    The inverse of GPT-2's ``bytes_to_unicode``: printable bytes of Latin-1 stand for themselves, the others
    follow from code point 256 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
    assert table.keys() == set(ByteLevel.alphabet())
    return table
