"""Checkpoints without weights, as people have them: the bundled one with other files in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from albireo.models import TINY
from albireo.v1 import inference_pb2 as api

TOKENIZER: dict[str, Any] = json.loads((TINY / "tokenizer.json").read_text())
OPTIONS: dict[str, Any] = json.loads((TINY / "tokenizer_config.json").read_text())
CONFIG: dict[str, Any] = json.loads((TINY / "config.json").read_text())
VOCAB_SIZE: int = CONFIG["vocab_size"]


def checkpoint(directory: Path, **files: object) -> Path:
    """``files`` by name, a dot as two underscores; what is no text becomes JSON, None leaves a file out."""
    directory.mkdir(parents=True, exist_ok=True)
    made = {
        "config.json": CONFIG,
        "tokenizer.json": TOKENIZER,
        "tokenizer_config.json": OPTIONS,
        **{name.replace("__", "."): content for name, content in files.items()},
    }
    for name, content in made.items():
        if content is not None:
            (directory / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return directory


def chat(*contents: str) -> list[api.ChatMessage]:
    """Turns of user and assistant."""
    roles = ["user", "assistant"] * len(contents)
    return [
        api.ChatMessage(role=role, content=content) for role, content in zip(roles, contents, strict=False)
    ]
