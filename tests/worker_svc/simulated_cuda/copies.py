"""Copies between the host and the simulated device, and within it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.worker_svc.simulated_cuda.device import device
from tests.worker_svc.simulated_cuda.memory import is_pinned, pin
from tests.worker_svc.simulated_cuda.tensor import SimulatedTensor, allocate, filled

aten = torch.ops.aten


def is_cuda(name: Any) -> bool:
    return name is not None and torch.device(name).type == "cuda"


def copy_(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """Copies from pageable memory are done when the call returns, whatever it asks for."""
    if not source.numel():
        return target
    if isinstance(target, SimulatedTensor):
        memory = target.memory
        if isinstance(source, SimulatedTensor):
            read = source.memory
            device().launch("copy_", lambda: memory.copy_(read))
        elif non_blocking and is_pinned(source, device()):
            device().launch("copy_ to device", lambda: memory.copy_(source))
        else:
            kept = source.clone()
            device().launch("copy_ to device", lambda: memory.copy_(kept))
            device().sync("copy_ to device")
        return target
    assert isinstance(source, SimulatedTensor)
    read = source.memory
    device().launch("copy_ to host", lambda: target.copy_(read))
    if not (non_blocking and is_pinned(target, device())):
        device().sync("copy_ to host")
    return target


def to_copy(source: Tensor, **options: Any) -> Tensor:
    """``aten._to_copy``: to another type or device."""
    non_blocking = bool(options.pop("non_blocking", False))
    where = options.pop("device", None)
    options = {key: options[key] for key in ("dtype", "memory_format") if options.get(key) is not None}
    if not isinstance(source, SimulatedTensor):
        return upload(source, non_blocking=non_blocking, **options)
    read = source.memory
    meta = torch.empty_strided(read.shape, read.stride(), dtype=read.dtype, device="meta")
    like = aten._to_copy.default(meta, **options)
    if where is None or is_cuda(where):
        return filled("_to_copy", like, lambda: read)
    target = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype)
    if non_blocking:
        pin(target, device())  # as torch does
    return copy_(target, source, non_blocking)


def upload(
    source: Tensor,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.preserve_format,
    non_blocking: bool = False,
) -> Tensor:
    """A tensor of the host on the device."""
    if dtype not in (None, source.dtype):
        source = aten._to_copy.default(source, dtype=dtype)  # pageable, as torch does it
    made = allocate(
        source.shape, torch.empty_like(source, memory_format=memory_format).stride(), source.dtype
    )
    return copy_(made, source, non_blocking)


def to_device(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor | None:
    """``Tensor.to``, where it brings a tensor of the host to the device; None where it does another thing."""
    if isinstance(tensor, SimulatedTensor):
        return None
    if args and isinstance(args[0], Tensor):
        args = (args[0].device, args[0].dtype, *args[1:])
    kwargs.pop("copy", None)
    where, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
    if not is_cuda(where):
        return None
    return upload(tensor, dtype=dtype, non_blocking=non_blocking)
