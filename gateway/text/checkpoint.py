"""What a gateway needs of a checkpoint: its tokenizer, chat template and a few numbers. No weights."""

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
"""Most ids that a text is turned into, or is made of, whatever the model's context."""
FIRST_CHARACTERS = 16_384
"""A shorter text is tokenized at once."""


class Checkpoint:
    """Tokenizer and chat template of a directory in Hugging Face layout. Its methods are thread-safe."""

    def __init__(self, directory: Path) -> None:
        """Raises CheckpointError, in one line, for what is missing or malformed."""
        check_directory(directory)
        self.vocab_size = _vocab_size(directory / CONFIG)
        pretrained = load_tokenizer(directory)
        self.tokenizer: Tokenizer = pretrained.backend_tokenizer
        self._template = ChatTemplate(pretrained)
        self._clean = None
        # As transformers: it only makes sense, and is only done, for other kinds than BPE.
        if pretrained.clean_up_tokenization_spaces and not isinstance(self.tokenizer.model, BPE):
            logger.warning("clean_up_tokenization_spaces: done by Detokenize, not in texts that stream")
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
    def chats(self) -> bool:
        return self._template.usable

    def encode(
        self, text: str, *, most: int = MAX_IDS, special: bool = True, field: str = "text"
    ) -> list[int]:
        """Ids of plain text; ``special`` adds what the tokenizer puts around it (a BOS, mostly).

        Raises Refusal that names ``field`` for a text that has no tokens, or one that the model lacks, and
        for one whose beginning alone has far more than ``most`` tokens: time and memory follow ``most``, not
        the length of the text.
        """
        length = FIRST_CHARACTERS + most
        while length < len(text):
            tokens = len(self._encode(text[:length], special=False, field=field))
            # The cut may have split a token, and what is merged before it; by far less than this.
            if tokens > most + most // 8 + 256:
                raise invalid(field, f"its first {length} characters have {tokens} tokens; at most {most}")
            length *= 2
        ids = self._encode(text, special=special, field=field)
        if max(ids, default=0) >= self.vocab_size:
            raise self._beyond(next(token for token in ids if token >= self.vocab_size), field)
        return ids

    def _encode(self, text: str, *, special: bool, field: str) -> list[int]:
        try:
            # The batch calls, unlike `encode` and `decode`, let go of the interpreter lock.
            ids: list[int] = self.tokenizer.encode_batch([text], add_special_tokens=special)[0].ids
        except Exception as error:  # such as an unknown word without an unknown token; nothing more precise
            raise invalid(field, f"the tokenizer refuses it: {one_line(error)}") from error
        return ids

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        [text] = self.tokenizer.decode_batch([ids], skip_special_tokens=skip_special_tokens)
        return str(self._clean(text) if self._clean else text)

    def encode_chat(
        self, messages: Sequence[api.ChatMessage], field: str, *, most: int = MAX_IDS
    ) -> list[int]:
        """Ids of a conversation and the beginning of the answer; ``most`` as in ``encode``.

        Raises Refusal that names ``field``.
        """
        # Templates write their own special tokens.
        return self.encode(self._template.render(messages, field), most=most, special=False, field=field)

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
