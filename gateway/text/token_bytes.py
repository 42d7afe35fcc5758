"""The longest text that one token id can stand for: it bounds a text's ids from below, before tokenization.

:class:`gateway.text.text_codec.TextCodec` computes it once, for validation.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from gateway.text.pretrained import state_of

LONGEST_CHARACTER = 4
"""UTF-8 bytes of one character: what an unknown token stands for if unknown characters are not fused."""
UNICODE_SHRINK = 4
"""Most bytes of text that Unicode's normal forms and lower case turn into one byte: a mathematical letter has
4 bytes and becomes an ASCII letter, and no composition turns more than 3.4 bytes into one."""
_UNICODE_FORMS = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase")
_KEEPS_ALL = ("ByteLevel", "Metaspace", "Digits", "UnicodeScripts")


def longest_token_bytes(tokenizer: Tokenizer) -> int | None:
    """An upper bound of the UTF-8 bytes of text that one id stands for.

    None if no bound is known: a tokenizer that drops characters (white space, accents), that turns many
    characters into one unknown token, or whose added tokens absorb the white space around them.
    """
    shrink = _shrink(state_of(tokenizer.normalizer))
    if shrink is None or not _keeps_all(state_of(tokenizer.pre_tokenizer)) or not _covers_all(tokenizer):
        return None
    added = tokenizer.get_added_tokens_decoder().values()
    if any(token.lstrip or token.rstrip for token in added):
        return None
    return shrink * max(longest_name_bytes(tokenizer), LONGEST_CHARACTER)


def longest_name_bytes(tokenizer: Tokenizer) -> int:
    """UTF-8 bytes of the longest token as the vocabulary writes it; its text is not longer."""
    return max((len(name.encode()) for name in tokenizer.get_vocab(with_added_tokens=True)), default=1)


def _shrink(normalizer: dict[str, Any] | None) -> int | None:
    """Most bytes that a normalizer turns into one; None: no bound."""
    if normalizer is None or normalizer["type"] in ("Prepend", "ByteLevel"):
        return 1
    if normalizer["type"] in _UNICODE_FORMS:
        return UNICODE_SHRINK
    if normalizer["type"] == "Replace" and "String" in normalizer["pattern"]:
        before, after = len(normalizer["pattern"]["String"].encode()), len(normalizer["content"].encode())
        return -(-before // after) if after else None
    if normalizer["type"] != "Sequence":
        return None
    product = 1
    for part in normalizer["normalizers"]:
        factor = _shrink(part)
        if factor is None:
            return None
        product *= factor
    return product


def _keeps_all(splitter: dict[str, Any] | None) -> bool:
    """Whether the pre-tokenizer drops no character."""
    if splitter is None or splitter["type"] in _KEEPS_ALL:
        return True
    if splitter["type"] in ("Split", "Punctuation"):
        return bool(splitter["behavior"] != "Removed")
    return splitter["type"] == "Sequence" and all(map(_keeps_all, splitter["pretokenizers"]))


def _covers_all(tokenizer: Tokenizer) -> bool:
    """Whether the model drops no character and does not fuse unknown characters into one token."""
    model = tokenizer.model
    if not isinstance(model, BPE):
        return False
    if _is_byte_level(tokenizer):
        return all(tokenizer.token_to_id(letter) is not None for letter in ByteLevel.alphabet())
    if model.byte_fallback:
        return all(map(partial(_has_byte, tokenizer), range(256)))
    return model.unk_token is not None and not model.fuse_unk


def _has_byte(tokenizer: Tokenizer, byte: int) -> bool:
    """Whether a byte has a token; for an ASCII character its own token counts too."""
    names = [f"<0x{byte:02X}>", chr(byte)] if byte < 128 else [f"<0x{byte:02X}>"]
    return any(tokenizer.token_to_id(name) is not None for name in names)


def _is_byte_level(tokenizer: Tokenizer) -> bool:
    return any(
        part is not None and b'"ByteLevel"' in part.__getstate__()
        for part in (tokenizer.normalizer, tokenizer.pre_tokenizer)
    )
