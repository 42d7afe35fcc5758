"""How much main memory is free; read by ranks on a CPU when they size their KV blocks, and by the doctor."""

from __future__ import annotations

from pathlib import Path

UNKNOWN_MEMORY = 1 << 30
"""Taken for free where the operating system does not say."""


def available_memory() -> int | None:
    """Bytes that a process can still allocate on this machine, or in this container; None where not known."""
    found = [_meminfo(), cgroup_memory()]
    return min((amount for amount in found if amount is not None), default=None)


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def cgroup_memory(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that the container's limit leaves, by cgroups of version 2 or 1; None without a limit.

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
