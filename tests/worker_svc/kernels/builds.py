"""The builds of the native kernels that this CPU runs: each must bring the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import strategies as st

from worker_svc.kernels.library import NativeLibrary, builds, load, locate
from worker_svc.kernels.native import NativeKernels

LIBRARIES = {
    name: library for name in builds() if (path := locate(name)) and (library := NativeLibrary(path))
}
USABLE = [name for name, library in LIBRARIES.items() if library.function("norm", torch.float32)]
BUILDS = st.sampled_from(USABLE or [""])


def native(dtype: torch.dtype, build: str | None = None) -> NativeKernels:
    """Of a build; by default that of this CPU. Where none is compiled the test fails: CI must have them."""
    library = load()
    if library is None:
        pytest.fail("the native kernels are not compiled: pip install -e . with a C++ compiler")
    return NativeKernels(LIBRARIES[build] if build else library, dtype)
