"""Texts and conversations to token ids and back, by the tokenizer and chat template of a checkpoint.

A gateway creates one at its start. Validation calls it, for large requests on the work threads. It reads no
weights.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import BPE

from albireo.checkpoint.files import CONFIG, CheckpointError, check_directory, read_json
from albireo.checkpoint.vocabulary import default_vocab_size
from albireo.v1 import inference_pb2 as api
from gateway.calls.refusal import Refusal, cut, invalid
from gateway.text.chat_template import ChatTemplate
from gateway.text.pretrained import load_tokenizer, one_line
from gateway.text.token_bytes import longest_token_bytes

logger = logging.getLogger(__name__)

MAX_IDS = 131_072
"""Most ids that a text is encoded to or decoded from, whatever the model's context length."""
FIRST_CHARACTERS = 16_384
"""A text with at most this many characters more than the limit of its ids is tokenized as a whole."""


class TextCodec:
    """Tokenizer and chat template of a directory in Hugging Face layout. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        """Raises CheckpointError, in one line, if something is missing or malformed."""
        check_directory(directory)
        self.vocab_size = _vocab_size(directory / CONFIG)
        """Of the model: ids are below it."""
        pretrained = load_tokenizer(directory)
        self.tokenizer: Tokenizer = pretrained.backend_tokenizer
        self._template = ChatTemplate(pretrained)
        self._clean = None
        # As in transformers: it only makes sense, and is only applied, for models other than BPE.
        if pretrained.clean_up_tokenization_spaces and not isinstance(self.tokenizer.model, BPE):
            logger.warning("clean_up_tokenization_spaces: applied by Detokenize, not to streamed text")
            self._clean = pretrained.clean_up_tokenization
        self.longest_token_bytes = longest_token_bytes(self.tokenizer)
        """Most UTF-8 bytes of text that one id stands for; None: not bounded."""
        beyond = self.tokenizer.get_vocab_size() - self.vocab_size
        if beyond > 0:
            logger.warning(
                "%s: the tokenizer has %d ids beyond the model's vocab_size, %d; texts with them are refused",
                directory,
                beyond,
                self.vocab_size,
            )

    @property
    def has_chat_template(self) -> bool:
        """Whether the checkpoint has a chat template without errors."""
        return self._template.usable

    def encode(
        self, text: str, *, max_ids: int = MAX_IDS, special: bool = True, field: str = "text"
    ) -> list[int]:
        """Ids of plain text; ``special`` adds what the tokenizer puts around it (mostly a BOS).

        Raises Refusal that names ``field`` if the tokenizer fails, if an id is beyond the model's vocabulary,
        and if the beginning of the text alone has far more than ``max_ids`` ids. Time and memory therefore
        grow with ``max_ids``, not with the text. The result may have more than
        ``max_ids`` ids: the caller checks that.
        """
        length = FIRST_CHARACTERS + max_ids
        while length < len(text):
            tokens = len(self._encode(text[:length], special=False, field=field))
            # The cut may have split a token and changed merges before it, but by far fewer ids than this.
            if tokens > max_ids + max_ids // 8 + 256:
                raise invalid(field, f"its first {length} characters have {tokens} tokens; at most {max_ids}")
            length *= 2
        ids = self._encode(text, special=special, field=field)
        if max(ids, default=0) >= self.vocab_size:
            raise self._beyond(next(token for token in ids if token >= self.vocab_size), field)
        return ids

    def encode_chat(
        self, messages: Sequence[api.ChatMessage], field: str, *, max_ids: int = MAX_IDS
    ) -> list[int]:
        """Ids of a conversation and of the beginning of the answer; ``max_ids`` as in ``encode``.

        Raises Refusal that names ``field``.
        """
        # Templates write their own special tokens.
        return self.encode(
            self._template.render(messages, field), max_ids=max_ids, special=False, field=field
        )

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        """The text of ``ids``, as transformers decodes it."""
        [text] = self.tokenizer.decode_batch([ids], skip_special_tokens=skip_special_tokens)
        return str(self._clean(text) if self._clean else text)

    def _encode(self, text: str, *, special: bool, field: str) -> list[int]:
        try:
            # The batch calls, unlike `encode` and `decode`, release the interpreter lock.
            ids: list[int] = self.tokenizer.encode_batch([text], add_special_tokens=special)[0].ids
        except Exception as error:  # tokenizers has no class of its own: e.g. for an unknown word
            raise invalid(field, f"the tokenizer refuses it: {one_line(error)}") from error
        return ids

    def _beyond(self, token: int, field: str) -> Refusal:
        name = cut(self.tokenizer.id_to_token(token) or "")
        return invalid(
            field, f"token {token}, {name!r}, is not below the model's vocabulary, {self.vocab_size}"
        )


def _vocab_size(path: Path) -> int:
    config = read_json(path)
    size = config.get("vocab_size", default_vocab_size(config))
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise CheckpointError(f"{path}: vocab_size is {size!r}; must be a positive whole number")
    return size
