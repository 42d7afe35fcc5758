"""Puts a simulated device in the place of torch's for the length of a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.worker_svc.simulated_cuda import attention, copies
from tests.worker_svc.simulated_cuda.collectives import patch_distributed
from tests.worker_svc.simulated_cuda.device import Device, Event, Stream, device, set_device
from tests.worker_svc.simulated_cuda.device_guard import cuda_device_guard
from tests.worker_svc.simulated_cuda.graphs import Capture, CUDAGraph, Pool
from tests.worker_svc.simulated_cuda.kernels import SimulatedKernels
from tests.worker_svc.simulated_cuda.memory import is_pinned, pin
from tests.worker_svc.simulated_cuda.operators import Operators
from worker_svc.kv_tiers import fetching, step_streams, step_transfers
from worker_svc.model import loader

CYCLES_PER_SECOND = 2e9
PATIENCE_SECONDS = 20.0
"""For KV: the simulated device is slow, and so is a machine that runs other tests."""


class StreamContext:
    """As ``torch.cuda.stream``."""

    def __init__(self, stream: Stream | None) -> None:
        self._stream = stream

    def __enter__(self) -> None:
        self._before = device().current
        device().current = self._stream or self._before

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        device().current = self._before


class DeviceContext:
    """As ``torch.cuda.device``: there is one."""

    def __init__(self, _: object) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


@contextmanager
def simulated_cuda(seed: int) -> Iterator[Device]:
    """Raises the first error of work on the device that the test has not seen to."""
    simulated = Device(seed)
    with pytest.MonkeyPatch.context() as patch, cuda_device_guard():
        set_device(simulated)
        _patch_cuda(patch, simulated)
        _patch_torch(patch)
        patch_distributed(patch)
        try:
            with Operators():  # type: ignore[no-untyped-call]
                yield simulated
                synchronize()
        finally:
            set_device(None)
    if simulated.errors:
        raise simulated.errors[0]


def synchronize(_: object = None) -> None:
    """As ``torch.cuda.synchronize``."""
    simulated = device()
    simulated.note_sync("synchronize")
    for stream in list(simulated.streams):
        simulated.wait(stream.mark())


def _patch_cuda(patch: pytest.MonkeyPatch, simulated: Device) -> None:
    def set_sync_debug_mode(mode: str) -> None:
        simulated.forbid_syncs = mode == "error"

    def sleep(cycles: int) -> None:
        simulated.launch("sleep", lambda: None, seconds=cycles / CYCLES_PER_SECOND)

    replaced: dict[str, Any] = {
        "CUDAGraph": CUDAGraph,
        "Event": Event,
        "Stream": Stream,
        "_lazy_init": lambda: None,
        "_sleep": sleep,
        "current_device": lambda: 0,
        "current_stream": lambda _=None: simulated.current,
        "default_stream": lambda _=None: simulated.default,
        "device": DeviceContext,
        "device_count": lambda: 1,
        "empty_cache": lambda: None,
        "graph": Capture,
        "graph_pool_handle": Pool,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "set_sync_debug_mode": set_sync_debug_mode,
        "stream": StreamContext,
        "synchronize": synchronize,
    }
    for name, value in replaced.items():
        patch.setattr(torch.cuda, name, value)
    for module, name in (
        (step_transfers, "COPY_SECONDS"),
        (fetching, "FETCH_SECONDS"),
        (step_streams, "FETCH_SECONDS"),
    ):
        patch.setattr(module, name, PATIENCE_SECONDS)
    patch.setattr(
        loader, "triton_kernels", lambda device, *_: SimulatedKernels() if device.type == "cuda" else None
    )


def _patch_torch(patch: pytest.MonkeyPatch) -> None:
    """What reaches no operator in torch's build for the CPU, since it asks for the device first."""
    to, tensor, as_tensor, run = Tensor.to, torch.tensor, torch.as_tensor, threading.Thread.run

    def to_(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        moved = copies.to_device(self, *args, **kwargs)
        return to(self, *args, **kwargs) if moved is None else moved

    def made_on_host(make: Any) -> Any:
        def make_(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
            if not copies.is_cuda(device):
                return make(data, *args, device=device, **kwargs)  # type: ignore[no-any-return]
            return copies.upload(make(data, *args, **kwargs))

        return make_

    def run_(self: threading.Thread) -> None:
        if self.name.startswith("pytest_timeout"):
            return run(self)
        with Operators():  # type: ignore[no-untyped-call]
            return run(self)

    patch.setattr(Tensor, "to", to_)
    patch.setattr(
        Tensor, "cuda", lambda self, _=None, non_blocking=False: to_(self, "cuda", None, non_blocking)
    )
    patch.setattr(Tensor, "is_pinned", lambda self, _=None: is_pinned(self, device()))
    patch.setattr(Tensor, "pin_memory", lambda self, _=None: pin(self.clone(), device()))
    patch.setattr(torch, "tensor", made_on_host(tensor))
    patch.setattr(torch, "as_tensor", made_on_host(as_tensor))
    patch.setattr(F, "scaled_dot_product_attention", attention.scaled_dot_product_attention)
    patch.setattr(threading.Thread, "run", run_)
