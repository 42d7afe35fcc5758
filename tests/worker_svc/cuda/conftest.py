"""The devices that these tests run on: a card with `make test-gpu`, and the simulated device in its place."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.worker_svc.simulated_cuda.device import CUDA
from tests.worker_svc.simulated_cuda.installed import simulated_cuda

CARD = pytest.param(None, id="card", marks=pytest.mark.gpu("the simulated device runs it as well"))
SIMULATED = pytest.param(2, id="simulated")
"""Under a seed that lets nothing run before it must."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of ``cuda`` runs on both, unless its own mark ``gpu`` says why it needs a card."""
    if "cuda" in metafunc.fixturenames:
        needs_card = metafunc.definition.get_closest_marker("gpu") is not None
        metafunc.parametrize("cuda", [CARD] if needs_card else [CARD, SIMULATED], indirect=True)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The model is tiny: more threads than one, for each stage, would only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def cuda(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The device. `make test-gpu` asks for a card by name: without one it must not pass."""
    if request.param is not None:
        with simulated_cuda(request.param):
            yield CUDA
        return
    if not torch.cuda.is_available():
        if request.config.option.markexpr:
            pytest.fail("torch finds no CUDA device")
        pytest.skip("torch finds no CUDA device")
    yield torch.device("cuda", torch.cuda.current_device())
