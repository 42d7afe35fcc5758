"""Imports of large packages, at less cost."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Pauses the garbage collector, for imports within the block.

    Modules and classes stay: to look for garbage among them, again and again while they become more, takes a
    fifth of the CPU time in which a worker imports torch.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
