"""Main memory: what is free, and how much of it an operator grants to KV blocks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import ByteSize, TypeAdapter, ValidationError


def available_memory() -> int | None:
    """Bytes that processes of this machine, or of this container, can still take; None where not known."""
    found = [_meminfo(), cgroup_memory()]
    return min((amount for amount in found if amount is not None), default=None)


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def cgroup_memory(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What the container's limit leaves, of either version of cgroups; None without a limit.

    Cached files that no process uses, such as weights that were read, count as free.
    """
    for folder, limit_name, used_name, file_name in (
        (root, "memory.max", "memory.current", "inactive_file"),
        (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            limit, used = (folder / limit_name).read_text().strip(), (folder / used_name).read_text()
            stat = (folder / "memory.stat").read_text() if (folder / "memory.stat").exists() else ""
        except OSError:
            continue
        kept = next((int(line.split()[1]) for line in stat.splitlines() if line.split()[0] == file_name), 0)
        return None if limit == "max" else max(0, int(limit) - int(used) + kept)
    return None


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
