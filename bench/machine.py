"""The machine that figures were measured on, in a line; printed under the tables of all benchmarks."""

from __future__ import annotations

import os
import platform


def machine() -> str:
    """Model of the CPU, number of cores that this process may use, version of Python."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            model = next(
                (line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), model
            )
    except OSError:
        pass  # not Linux: the platform's own name has to do
    return f"{model}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"
