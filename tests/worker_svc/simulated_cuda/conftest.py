"""The simulated device under a seed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.worker_svc.simulated_cuda.device import Device
from tests.worker_svc.simulated_cuda.installed import simulated_cuda


@pytest.fixture(params=[2])
def simulated(request: pytest.FixtureRequest) -> Iterator[Device]:
    """Under a seed that lets nothing run before it must, unless a test names others."""
    with simulated_cuda(request.param) as device:
        yield device
