"""The library of kernels in C++: which build of it this CPU runs, and its functions."""

from __future__ import annotations

import ctypes
import logging
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch

logger = logging.getLogger(__name__)

GENERAL = "_native"
"""For CPUs of other kinds than x86-64."""
VERSION = 3
"""Of the functions and structures; native.cpp has the same number."""
SUFFIXES = {torch.bfloat16: "bf16", torch.float32: "fp32"}
_POINTER, _COUNT, _NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_ARGUMENTS: dict[str, list[Any]] = {
    "norm": [_POINTER] * 4 + [_COUNT] * 2 + [_NUMBER],
    "gate": [_POINTER] * 2 + [_COUNT] * 2,
    "rotate": [_POINTER] * 5 + [_NUMBER] + [_POINTER] * 4 + [_COUNT] * 4,
    "matmul": [_POINTER] * 4 + [_COUNT] * 3,
    "matmul_int8": [_POINTER] * 8 + [_COUNT] * 4,
    "draw": [_POINTER] + [_COUNT] * 3 + [_POINTER] * 7,
    "layers": [_POINTER] * 2 + [_COUNT] + [_POINTER] * 2,
    "attention": [_POINTER] * 4 + [_COUNT] + [_POINTER] * 2 + [_COUNT] * 4,
}
_ARGUMENTS |= {f"{name}_int8": _ARGUMENTS[name] for name in ("rotate", "attention", "layers")}
_ARGUMENTS |= {f"{name}_wide": _ARGUMENTS[name] for name in ("matmul", "matmul_int8")}
_RESULTS: dict[str, Any] = dict.fromkeys(("layers", "layers_int8"), ctypes.c_int)


def builds() -> list[str]:
    """Names of the libraries that this CPU runs, the fastest first."""
    cpu, found = torch.cpu, []
    if cpu._is_avx512_bf16_supported() and cpu._is_vnni_supported():
        found.append("_native_bf16")
    if cpu._is_vnni_supported():
        found.append("_native_vnni")
    if cpu._is_avx2_supported():
        found.append("_native_v3")
    return [*found, GENERAL]


def locate(build: str) -> str | None:
    """The path of a library; None where it was not compiled."""
    spec = find_spec(f"worker_svc.kernels.{build}")
    return None if spec is None else spec.origin


@cache
def load() -> NativeLibrary | None:
    """The library for this CPU; None where none was compiled that it runs."""
    for path in filter(None, map(locate, builds())):
        try:
            library = NativeLibrary(path)
        except OSError as error:
            logger.warning("%s cannot be loaded: %s", path, error)
            continue
        if library.function("norm", torch.float32) is None:
            continue  # an empty build
        if library.version == VERSION:
            return library
        logger.warning("%s is of another version: install the package again", path)
    return None


class NativeLibrary:
    """The functions of one build."""

    def __init__(self, path: str) -> None:
        """Raises OSError where it cannot be loaded."""
        self._keeping, self._giving = ctypes.PyDLL(path), ctypes.CDLL(path)
        self.version = self._giving.version() if hasattr(self._giving, "version") else 0

    def function(self, name: str, dtype: torch.dtype, *, keeps_interpreter: bool = False) -> Any:
        """None where this build has it not. ``keeps_interpreter``: for calls so short that another thread
        which took the interpreter meanwhile would keep it for longer."""
        library = self._keeping if keeps_interpreter else self._giving
        try:
            function = getattr(library, f"{name}_{SUFFIXES[dtype]}")
        except AttributeError:
            return None
        function.argtypes, function.restype = _ARGUMENTS[name], _RESULTS.get(name)
        return function
