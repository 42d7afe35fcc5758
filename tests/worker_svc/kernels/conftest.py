"""Triton's kernels in its interpreter, which needs no GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.worker_svc.kernels.interpreted import interpreted_kernels
from tests.worker_svc.kernels.triton_scene import TritonScene


@pytest.fixture(scope="module")
def triton_scene() -> Iterator[TritonScene]:
    with interpreted_kernels() as kernels:
        yield TritonScene(kernels)
