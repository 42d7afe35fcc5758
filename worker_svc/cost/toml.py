"""Reads a preset or a TOML file into a pydantic model. Whatever is wrong with it is one line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)


def read_toml(name_or_path: str, *folders: Path, what: str) -> tuple[Path, dict[str, Any]]:
    """The file that ``name_or_path`` means, a preset's name first, and what is in it. Raises ValueError."""
    presets = {file.stem: file for folder in folders for file in sorted(folder.glob("*.toml"))}
    path = presets.get(name_or_path, Path(name_or_path))
    try:
        return path, tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(presets))
        raise ValueError(f"{what} {name_or_path!r}: no such file; presets: {known}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{what} {path}: {error}") from None


def validated(model: type[M], raw: dict[str, Any], path: Path, *, what: str) -> M:
    """``raw``, which ``path`` held, as ``model``. Raises ValueError that names the wrong fields."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(f"{what} {path}: {problems}") from None


def read_model(model: type[M], name_or_path: str, *folders: Path, what: str) -> M:
    """Raises ValueError in one line."""
    path, raw = read_toml(name_or_path, *folders, what=what)
    return validated(model, raw, path, what=what)
