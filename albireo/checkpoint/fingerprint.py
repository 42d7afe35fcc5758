"""The fingerprint of a checkpoint: whether a gateway and a worker group read the same one.

It covers the small files that both read, not the weights, which a gateway need not have. Two directories with
one fingerprint give text the same ids, and ids the same meaning.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from albireo.checkpoint.files import (
    ADDED_TOKENS,
    CONFIG,
    GENERATION,
    SPECIAL_TOKENS,
    TOKENIZER,
    TOKENIZER_CONFIG,
)

FILES = (
    CONFIG,
    GENERATION,
    TOKENIZER,
    TOKENIZER_CONFIG,
    SPECIAL_TOKENS,
    ADDED_TOKENS,
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)
NAMED_TEMPLATES = "additional_chat_templates"


def fingerprint(directory: Path) -> str:
    """16 hexadecimal digits, of the names and bytes of those files that are there. Raises OSError."""
    files = [directory / name for name in FILES]
    files += sorted((directory / NAMED_TEMPLATES).glob("*.jinja"))
    state = hashlib.blake2b(digest_size=8)
    for file in files:
        if file.exists():
            state.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return state.hexdigest()
