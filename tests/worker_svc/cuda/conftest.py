"""The device, for the checks that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The model is tiny: more threads than one, for each stage, would only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def cuda(request: pytest.FixtureRequest) -> torch.device:
    """The device. `make test-gpu` asks for these checks by name: without a device it must not pass."""
    if not torch.cuda.is_available():
        if request.config.option.markexpr:
            pytest.fail("torch finds no CUDA device")
        pytest.skip("torch finds no CUDA device")
    return torch.device("cuda", torch.cuda.current_device())
