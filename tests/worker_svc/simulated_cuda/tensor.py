"""Tensors on the simulated device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from tests.worker_svc.simulated_cuda.device import CUDA, Stream, device
from tests.worker_svc.simulated_cuda.memory import Allocation


class SimulatedTensor(Tensor):
    """A tensor for torch, with shape, dtype and ``cuda:0``. Its numbers are those of ``memory``, once all
    that was launched on it has run."""

    memory: Tensor
    allocation: Allocation

    # What torch has for subclasses in Python is not wanted; operators arrive at __torch_dispatch__.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, memory: Tensor, allocation: Allocation) -> SimulatedTensor:
        with torch.inference_mode(False):  # torch wants views of one kind, and makes them in both modes
            made: SimulatedTensor = torch.Tensor._make_wrapper_subclass(
                cls,
                memory.shape,
                strides=memory.stride(),
                storage_offset=int(memory.storage_offset()),
                dtype=memory.dtype,
                device=CUDA,
                requires_grad=False,
            )
        made.memory, made.allocation = memory, allocation
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, operator: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        from tests.worker_svc.simulated_cuda.operators import dispatch

        return dispatch(operator, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"SimulatedTensor({tuple(self.shape)}, {self.dtype})"

    def record_stream(self, stream: Stream) -> None:  # type: ignore[override]
        device().counts["record_stream"] += 1
        self.allocation.users.add(stream)

    def is_pinned(self, _: object = None) -> bool:
        return False

    def numpy(self, **_: Any) -> NoReturn:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def tolist(self) -> Any:
        device().sync("tolist")
        return self.memory.tolist()


def allocate(shape: Any, stride: Any, dtype: torch.dtype) -> SimulatedTensor:
    memory = torch.empty_strided(tuple(shape), tuple(stride), dtype=dtype)
    return SimulatedTensor(memory, Allocation(memory, device()))


def filled(name: str, like: Tensor, compute: Callable[[], Tensor]) -> SimulatedTensor:
    """A new tensor as ``like``, into which work puts what ``compute`` brings."""
    made = allocate(like.shape, like.stride(), like.dtype)
    memory = made.memory
    device().launch(name, lambda: memory.copy_(compute()))
    return made
