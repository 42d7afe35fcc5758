"""Compares the gateway's functions with transformers on one checkpoint, which each loads by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from albireo.v1 import inference_pb2 as api
from bench.tokenizers import corpus
from gateway.calls.refusal import Refusal
from gateway.text.detokenizer import Detokenizer, Vocabulary
from gateway.text.text_codec import TextCodec

REPLACEMENT = "\ufffd"


@dataclass
class Count:
    """Comparisons of one kind."""

    equal: int = 0
    total: int = 0
    differences: list[str] = field(default_factory=list)

    def add(self, ours: object, theirs: object, about: object) -> None:
        self.total += 1
        if ours == theirs:
            self.equal += 1
        else:
            self.differences.append(f"{about!r}: {ours!r}, transformers {theirs!r}")


def compare(directory: Path) -> dict[str, Count]:
    """Counts by what was compared."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    return Comparison(TextCodec(directory), theirs).counts()


class Comparison:
    """The gateway's functions and a tokenizer of transformers."""

    def __init__(self, ours: TextCodec, theirs: Any) -> None:
        self._ours = ours
        self._theirs = theirs
        self._vocabulary = Vocabulary(ours.tokenizer)
        self._special = [token.content for token in theirs.added_tokens_decoder.values()]

    def counts(self) -> dict[str, Count]:
        names = ("ids of texts", "decoded", "streamed texts", "streamed ids", "chats")
        found = {name: Count() for name in names}
        for text in corpus.texts(self._special):
            ids = self._theirs(text)["input_ids"]
            found["ids of texts"].add(self._ours.encode(text), ids, text)
            for skip in (True, False):
                ours = self._ours.decode(ids, skip_special_tokens=skip)
                found["decoded"].add(ours, self._theirs.decode(ids, skip_special_tokens=skip), ids)
            self._stream(found["streamed texts"], ids)
        for ids in self._drawn():
            self._stream(found["streamed ids"], ids)
        for chat in corpus.chats(self._special) if self._theirs.chat_template else ():
            found["chats"].add(self._our_chat(chat), self._their_chat(chat), chat)
        return found

    def _drawn(self) -> Iterator[list[int]]:
        size = len(self._theirs)
        pieces = map(self._vocabulary.piece, range(size))
        single = [token for token, piece in enumerate(pieces) if isinstance(piece, bytes) and len(piece) == 1]
        return iter(corpus.ids(size, single))

    def _stream(self, count: Count, ids: list[int]) -> None:
        """The first half as the prompt, the rest as it is drawn, id by id."""
        prompt, outputs = ids[: len(ids) // 2], ids[len(ids) // 2 :]
        before, whole = (self._theirs.decode(part, skip_special_tokens=True) for part in (prompt, ids))
        if self._vocabulary.falls_back and REPLACEMENT in whole:  # a run that transformers takes back
            ids = [token for token in ids if not isinstance(self._vocabulary.piece(token), bytes)]
            before, prompt, outputs = "", [], ids
            whole = self._theirs.decode(ids, skip_special_tokens=True)
        elif before.endswith(REPLACEMENT):  # the border lies inside a character
            before, prompt, outputs = "", [], ids
        detokenizer = Detokenizer(self._vocabulary, prompt)
        ours = "".join(detokenizer.push([token]) for token in outputs) + detokenizer.flush()
        count.add(ours, whole[len(before) :], ids)

    def _our_chat(self, chat: corpus.Chat) -> list[int] | None:
        try:
            return self._ours.encode_chat([api.ChatMessage(**message) for message in chat], "chat")
        except Refusal:
            return None

    def _their_chat(self, chat: corpus.Chat) -> list[int] | None:
        from jinja2 import TemplateError

        try:
            ids: list[int] = self._theirs.apply_chat_template(
                chat, add_generation_prompt=True, return_dict=False
            )
        except TemplateError:
            return None
        return ids
