"""Attention with ragged block tables on the simulated device: each call is one kernel, as Triton's are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from tests.worker_svc.ragged import RaggedKernels
from tests.worker_svc.simulated_cuda.device import device
from worker_svc.kernels.plain import PlainKernels
from worker_svc.kernels.rounding import PlainRounding


class SimulatedKernels(PlainKernels):
    """See :class:`worker_svc.kernels.interface.RaggedAttention`."""

    rounding = PlainRounding()

    def __init__(self) -> None:
        self._on_host = RaggedKernels()

    def decode(self, *tensors: Tensor) -> None:
        _launch("decode", self._on_host.decode, tensors)

    def chunks(self, *tensors: Tensor) -> None:
        _launch("chunks", self._on_host.chunks, tensors)


def _launch(name: str, kernel: Callable[..., None], tensors: tuple[Any, ...]) -> None:
    """Raises AttributeError for a tensor that is not on the device."""
    memories = [tensor.memory for tensor in tensors]
    device().launch(name, lambda: kernel(*memories))
