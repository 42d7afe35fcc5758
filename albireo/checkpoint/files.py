"""The small files of a checkpoint: what must be there, how they are read, and what a refusal says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

CONFIG = "config.json"
GENERATION = "generation_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
ADDED_TOKENS = "added_tokens.json"

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class CheckpointError(ValueError):
    """A checkpoint that cannot be served; the message names the file or field, and what to do."""


def check_directory(directory: Path) -> None:
    """Raises CheckpointError for what is no directory with a config.json, saying what it is instead."""
    if directory.is_file():
        what = "a GGUF file" if directory.suffix.lower() == ".gguf" else "a file"
        raise CheckpointError(
            f"{directory}: {what}; --model names a directory with {CONFIG} and *.safetensors files"
        )
    if not directory.is_dir():
        name = str(directory)
        hint = f"; is it a name on a hub? Download it first: hf download {name} --local-dir DIRECTORY"
        raise CheckpointError(f"{name}: no such directory{hint if _HUB_NAME.fullmatch(name) else ''}")
    if (directory / CONFIG).exists():
        return
    found = {path.name for path in directory.iterdir()}
    if "adapter_config.json" in found:
        raise CheckpointError(
            f"{directory}: an adapter (adapter_config.json) without its model; merge it into that and save"
        )
    if any(name.lower().endswith(".gguf") for name in found):
        raise CheckpointError(
            f"{directory}: GGUF files only; download the safetensors checkpoint that they come from"
        )
    if "snapshots" in found and "blobs" in found:
        raise CheckpointError(
            f"{directory}: a hub's cache; --model names the directory of one revision in snapshots/"
        )
    empty = "" if found else " (the directory is empty)"
    raise CheckpointError(f"{directory / CONFIG}: no such file{empty}; download the whole checkpoint")


def read_json(path: Path) -> dict[str, Any]:
    """Raises CheckpointError where there is no such file, or no JSON object in it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except RecursionError:
        raise CheckpointError(f"{path}: nested too deeply") from None
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return value


def read_optional_json(path: Path) -> dict[str, Any]:
    """The same, but empty where there is no such file."""
    return read_json(path) if path.exists() else {}
