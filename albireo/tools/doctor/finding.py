"""The result of a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report. A note is not a problem: something was not checked, or need not be."""

    check: str
    level: Level
    found: str
    advice: str = ""  # what to do; empty where there is nothing


def ok(check: str, found: str) -> Finding:
    return Finding(check, "ok", found)


def note(check: str, found: str, advice: str = "") -> Finding:
    return Finding(check, "note", found, advice)


def warning(check: str, found: str, advice: str) -> Finding:
    return Finding(check, "warning", found, advice)


def failure(check: str, found: str, advice: str) -> Finding:
    return Finding(check, "failure", found, advice)


def size(count: float) -> str:
    """Bytes in the largest unit that fits, as ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
