"""Token ids to exact text deltas."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


class Vocabulary:
    """What the detokenizers of one tokenizer share."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        special = {index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        # All others are skipped: special tokens, and ids that only pad the model's vocabulary.
        self.readable = frozenset(tokenizer.get_vocab(with_added_tokens=True).values()) - special
        # Only decoders with a byte fallback read such tokens as bytes; elsewhere they are plain text.
        falls_back = b"ByteFallback" in tokenizer.decoder.__getstate__() if tokenizer.decoder else False
        tokens = tokenizer.get_vocab(with_added_tokens=False) if falls_back else {}
        self.bytes = frozenset(index for token, index in tokens.items() if _BYTE_TOKEN.fullmatch(token))


class Detokenizer:
    """Text of one stream. Its deltas, concatenated, are the tokenizer's decoding of all ids.

    The library's streaming decoder does the work, and never ends inside a character. Byte-fallback
    tokens reach it a whole run at a time, because one wrong byte turns all characters of its run into
    replacement characters; ids that have no text do not reach it at all.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._stream = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._run: list[int] = []  # byte tokens whose run has not ended
        self._length = 0  # characters given out

    def push(self, ids: Iterable[int]) -> str:
        """The text that ``ids`` complete."""
        vocabulary, parts = self._vocabulary, []
        for token in ids:
            if token not in vocabulary.readable:
                continue
            self._ids.append(token)
            if token in vocabulary.bytes:
                self._run.append(token)
                continue
            text = self._stream.step(vocabulary.tokenizer, [*self._run, token])
            self._run.clear()
            if text:
                parts.append(text)
        delta = "".join(parts)
        self._length += len(delta)
        return delta

    def flush(self) -> str:
        """What is left when no more ids come: an unfinished character, for one."""
        rest: str = self._vocabulary.tokenizer.decode(self._ids, skip_special_tokens=True)[self._length :]
        self._length += len(rest)
        return rest
