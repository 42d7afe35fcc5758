"""Checks the directory of a disk tier: whether it can be used, how fast its disk is, and what that brings."""

from __future__ import annotations

import shutil
from pathlib import Path

from albireo.tools.doctor.finding import Finding, failure, note, ok, size, warning
from worker_svc.cost.shape import ModelShape
from worker_svc.kv_tiers.disk_speed import DiskSpeed, directory_speed
from worker_svc.model.config import ModelConfig

DTYPE_BYTES = {"float32": 4, "bfloat16": 2}
MOUNTS = Path("/proc/self/mounts")
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "lustre", "glusterfs"}
MEMORY = {"tmpfs", "ramfs"}
TOKENS = 1000


def check_disk(directory: Path, wanted: int) -> tuple[Finding, DiskSpeed | None]:
    """``wanted``: bytes of all ranks together. Measures for less than a second; leaves no file."""
    there = directory if directory.exists() else directory.parent
    try:
        free = shutil.disk_usage(there).free
        taken = sum(512 * path.stat().st_blocks for path in directory.glob("rank*.data"))
        kind = file_system(there)
        speed = directory_speed(there)
    except OSError as error:
        advice = "name a directory that this user may write, on a disk with space; its parent must exist"
        return failure("kv disk", f"{directory}: {error.strerror}", advice), None
    found = (
        f"{directory}: {kind}, {size(free)} free, {size(taken)} taken by KV; reads {size(speed.read)}/s, "
        f"writes {size(speed.write)}/s"
    )
    if wanted > free + taken:
        advice = f"lower --kv-disk-size, or free space: all ranks together take {size(wanted)}"
        return failure("kv disk", found, advice), speed
    if kind in MEMORY:
        advice = "it is main memory that --kv-memory could have: name a directory on a disk"
        return warning("kv disk", found, advice), speed
    if kind.removeprefix("fuse.") in NETWORK:
        advice = "name a directory on a disk of this machine: all ranks wait for the slowest fetch"
        return warning("kv disk", found, advice), speed
    return ok("kv disk", found), speed


def file_system(directory: Path) -> str:
    """The type of the one that a directory is on, by the kernel's list of mounts. Raises OSError."""
    target, found, depth = directory.resolve(), "unknown file system", 0
    for line in MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines():
        mounted, kind = line.split()[1:3]
        point = Path(mounted.replace(r"\040", " "))
        if (point == target or point in target.parents) and len(point.parts) >= depth:
            found, depth = kind, len(point.parts)
    return found


def check_use(
    speed: DiskSpeed, config: ModelConfig, dtype: str, operations: float | None, ranks: int
) -> Finding:
    """What fetching brings over computing.

    ``operations``: of one rank per second while all compute, None where that is not known. ``ranks``: of this
    machine, which share the disk.
    """
    shape = ModelShape(config, ranks, DTYPE_BYTES[dtype])
    taken = TOKENS * shape.kv_token_bytes
    read = ranks * taken / speed.read
    found = f"{TOKENS} tokens take {size(taken)} of each of {ranks} rank(s), read in {read * 1e3:.0f} ms"
    if operations is None:
        return note("kv disk use", found)
    compute = 2 * TOKENS * shape.layer_parameters / operations
    found += f"; their matrix products take {compute * 1e3:.0f} ms"
    if read > compute:
        return warning(
            "kv disk use",
            found,
            "leave --kv-disk off, or use a faster disk: what is slower to read than to compute is computed",
        )
    return ok("kv disk use", found)
