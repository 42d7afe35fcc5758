"""A guard of the CUDA device for torch's build for the CPU, which has none.

Many of torch's operators make a device current before they do anything, even where a Python tensor takes
over, and look up how in a table by device type. The meta device's entry does nothing, which is right for one
device. Where the build is for CUDA and finds no GPU, torch itself can fill in such an entry.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

TABLE = "_ZN3c104impl26device_guard_impl_registryE"
"""``c10::impl::device_guard_impl_registry``, an array of pointers, in torch 2.13."""
CUDA, META = 1, 14
"""Of ``c10::DeviceType``."""


@contextmanager
def cuda_device_guard() -> Iterator[None]:
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    table = (ctypes.c_void_p * (META + 1)).in_dll(library, TABLE)
    before = table[CUDA]
    table[CUDA] = table[META]
    try:
        yield
    finally:
        table[CUDA] = before
