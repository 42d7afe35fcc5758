"""How much memory an operator grants to KV blocks, or to the host tier below them: options of workers and of
``albireo up``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, ByteSize, TypeAdapter, ValidationError

DISK_BYTES = 8 << 30
"""What auto means for the size of a KV tier on a disk."""


@dataclass(frozen=True, slots=True)
class KvMemory:
    """Memory for the KV blocks of one rank: bytes, a share of what is free, or neither, which is auto."""

    size: int | None = None
    share: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """``8GiB``, ``512MiB``, ``40%`` or ``auto``. Raises ValueError."""
        text = text.strip()
        if text.lower() == "auto":
            return cls()
        if text.endswith("%"):
            try:
                share = float(text[:-1]) / 100
            except ValueError:
                share = 0.0
            if not 0 < share <= 1:
                raise ValueError(f"{text!r} is no share above 0% up to 100%")
            return cls(share=share)
        try:
            size = int(TypeAdapter(ByteSize).validate_python(text))
        except ValidationError:
            size = 0
        if size <= 0:
            raise ValueError(f"{text!r} is neither a size such as 8GiB, nor a share such as 40%, nor auto")
        return cls(size=size)

    @classmethod
    def parse_disk(cls, text: str) -> int | None:
        """Bytes on a disk: a size, or None for ``auto``. Raises ValueError."""
        found = cls.parse(text)
        if found.share is not None:
            raise ValueError(f"{text!r} is neither a size such as 8GiB nor auto")
        return found.size

    @classmethod
    def parse_or_none(cls, text: str) -> Self | None:
        """The same, and ``none``. Raises ValueError."""
        return None if text.strip().lower() == "none" else cls.parse(text)


def check_disk(directory: Path | None, size: str) -> None:
    """Raises ValueError where a size is given for a disk that is not."""
    if directory is None and KvMemory.parse_disk(size) is not None:
        raise ValueError("kv_disk_size: give kv_disk too; without it there is no KV tier on a disk")


def _checked(parse: Callable[[str], object]) -> AfterValidator:
    def check(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(check)


BlockMemoryText = Annotated[str, _checked(KvMemory.parse)]
"""A setting that ``KvMemory.parse`` takes."""
HostMemoryText = Annotated[str, _checked(KvMemory.parse_or_none)]
"""One that ``KvMemory.parse_or_none`` takes."""
DiskSizeText = Annotated[str, _checked(KvMemory.parse_disk)]
"""One that ``KvMemory.parse_disk`` takes."""
