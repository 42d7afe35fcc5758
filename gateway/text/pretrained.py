"""Loads a checkpoint's tokenizer through transformers, without torch, network access or the checkpoint's
code.

The gateway calls it at its start, ``albireo doctor`` when it examines a checkpoint.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from albireo.checkpoint.files import (
    CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
    CheckpointError,
    read_optional_json,
)

NO_FILE = (
    "{0}: no tokenizer.json (nor vocab.json with merges.txt): load the checkpoint with transformers where "
    "sentencepiece is installed and save its tokenizer here with save_pretrained"
)
CODE = "auto_map in tokenizer_config.json or config.json names code of the checkpoint, which is never run"


@contextmanager
def without_torch() -> Iterator[None]:
    """Prevents the import of torch, which is large and which a tokenizer does not need, within the block.

    transformers imports torch on its own first import if torch is installed: enter the block before that. No
    effect in a process that has imported torch already.
    """
    absent = "torch" not in sys.modules
    if absent:
        # None makes every import of that name fail as if it was not installed (import system, 5.3.1).
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent:
            del sys.modules["torch"]


def load_tokenizer(directory: Path) -> Any:
    """The fast tokenizer (``TokenizersBackend``) of a directory. Raises CheckpointError, in one line."""
    names = {path.name for path in directory.iterdir()}
    read_optional_json(directory / TOKENIZER_CONFIG)  # transformers does not say which file it cannot read
    if TOKENIZER not in names and not {"vocab.json", "merges.txt"} <= names:
        raise CheckpointError(NO_FILE.format(directory))
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"  # that torch is missing
    # Imported late: within `without_torch`, and not by commands that only list the options of a gateway.
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    try:
        loaded = AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers and tokenizers have no common subclass
        why = CODE if "trust_remote_code" in str(error) else one_line(error)
        file = CONFIG if isinstance(error, StrictDataclassError) else TOKENIZER
        raise CheckpointError(f"{directory / file}: the tokenizer cannot be loaded: {why}") from error
    tokenizer = getattr(loaded, "backend_tokenizer", None)
    if tokenizer is None:
        raise CheckpointError(f"{directory}: tokenizer_class {type(loaded).__name__} has no tokenizer.json")
    # Lengths of training batches; transformers applies them only on request.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return loaded


def state_of(part: Any) -> dict[str, Any] | None:
    """A normalizer, pre-tokenizer or decoder as tokenizer.json holds it; None if there is none."""
    state: dict[str, Any] | None = None if part is None else json.loads(part.__getstate__())
    return state


def one_line(error: BaseException, most: int = 400) -> str:
    """Type and message of an error, without line breaks, at most ``most`` characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:most]
