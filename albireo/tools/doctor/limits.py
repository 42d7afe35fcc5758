"""Checks limits of the machine that are reached only under load."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

from albireo.tools.doctor.finding import Finding, failure, ok, size, warning

SPARE_FILES = 256
"""Files that a gateway has open in addition to its clients: Redis, files, those of gRPC."""
SHARED_MEMORY = Path("/dev/shm")
NCCL_BYTES = 1 << 30
"""NCCL's buffers between the GPUs of one machine; Docker gives a container 64 MiB by default."""


def check_files(max_streams: int) -> Finding:
    """``max_streams``: calls that a gateway serves at once; in the worst case each has its own connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = max_streams + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return ok("open files", f"{soft}, {needed} are enough for a gateway")
    return warning(
        "open files",
        f"{soft} (hard limit {hard}), a gateway of {max_streams} streams may need {needed}",
        f"ulimit -n {needed} (LimitNOFILE, ulimits: nofile), or lower ALBIREO_GATEWAY_MAX_STREAMS",
    )


def check_shared_memory(device: str, tp: int) -> Finding:
    if device != "cuda" or tp == 1:
        return ok("shared memory", f"{SHARED_MEMORY} is not needed: no NCCL between ranks")
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError as error:
        return failure("shared memory", f"{SHARED_MEMORY}: {error.strerror}", "NCCL needs it: mount a tmpfs")
    if free < NCCL_BYTES:
        return warning(
            "shared memory",
            f"{size(free)} free in {SHARED_MEMORY}",
            f"give a container {size(NCCL_BYTES)} (shm_size, --shm-size, a memory-backed emptyDir)",
        )
    return ok("shared memory", f"{size(free)} free in {SHARED_MEMORY}")
