"""The end tokens of a checkpoint: those that its config, its generation config and its tokenizer name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from albireo.checkpoint.files import (
    ADDED_TOKENS,
    CONFIG,
    GENERATION,
    SPECIAL_TOKENS,
    TOKENIZER,
    TOKENIZER_CONFIG,
    read_optional_json,
)

NONE = -1
"""What some configs write for no end token."""


class EndIds(NamedTuple):
    """What was found; each of ``ignored`` names the file, the field and the value."""

    ids: frozenset[int]
    ignored: tuple[str, ...]


def end_ids(directory: Path, config: dict[str, Any], vocab_size: int, default: int | None) -> EndIds:
    """``config``: what config.json has. ``default``: the family's, where none of the files names any.

    An id that is none, or lies beyond the vocabulary, is ignored: the model cannot draw it. Raises
    CheckpointError for a file that cannot be read.
    """
    ids: set[int] = set()
    ignored = []
    named = [(CONFIG, config.get("eos_token_id"))]
    named.append((GENERATION, read_optional_json(directory / GENERATION).get("eos_token_id")))
    for file, value in named:
        for each in value if isinstance(value, list) else [value]:
            if each is None or each == NONE:
                continue
            if isinstance(each, int) and not isinstance(each, bool) and 0 <= each < vocab_size:
                ids.add(each)
            else:
                ignored.append(f"{file}: eos_token_id: {each!r}")
    for file, text, found in _of_tokenizer(directory):
        if found < vocab_size:
            ids.add(found)
        else:
            ignored.append(f"{file}: eos_token: {text!r}, id {found}")
    if not ids and "eos_token_id" not in config and default is not None and default < vocab_size:
        ids.add(default)
    return EndIds(frozenset(ids), tuple(ignored))


def _of_tokenizer(directory: Path) -> Iterator[tuple[str, str, int]]:
    """File, text and id of the tokenizer's own end token, if it has one."""
    options = read_optional_json(directory / TOKENIZER_CONFIG)
    file, token = TOKENIZER_CONFIG, options.get("eos_token")
    if token is None:
        file, token = SPECIAL_TOKENS, read_optional_json(directory / SPECIAL_TOKENS).get("eos_token")
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str):
        return
    vocabulary = _added_tokens(directory, options)
    if text not in vocabulary:
        vocabulary = _vocabulary(directory)
    found = vocabulary.get(text)
    if isinstance(found, int) and found >= 0:
        yield file, text, found


def _added_tokens(directory: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Text to id, from the two small files that may hold them."""
    found: dict[str, Any] = dict(read_optional_json(directory / ADDED_TOKENS))
    decoder = options.get("added_tokens_decoder")
    for number, token in decoder.items() if isinstance(decoder, dict) else ():
        if isinstance(token, dict) and number.isdigit():
            found[str(token.get("content"))] = int(number)
    return found


def _vocabulary(directory: Path) -> dict[str, Any]:
    """Text to id, from tokenizer.json; what is not as it should be is for the gateway to refuse."""
    tokenizer = read_optional_json(directory / TOKENIZER)
    found: dict[str, Any] = {}
    model = tokenizer.get("model")
    known = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(known, dict):
        found |= known
    elif isinstance(known, list):  # Unigram: pairs of a piece and its score
        found |= {str(pair[0]): index for index, pair in enumerate(known) if isinstance(pair, list) and pair}
    added = tokenizer.get("added_tokens")
    for token in added if isinstance(added, list) else ():
        if isinstance(token, dict):
            found[str(token.get("content"))] = token.get("id")
    return found
