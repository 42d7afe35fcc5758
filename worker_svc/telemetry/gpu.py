"""Readings of the GPU that a rank computes on, through NVML.

The thread that renews the group's lease reads them, about twice a second.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pynvml

from albireo.v1 import control_pb2 as control

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


class GpuReader:
    """Reads one GPU through NVML. A reading takes up to a few milliseconds, without the interpreter."""

    def __init__(self, handle: Any, rank: int) -> None:
        """``handle``: NVML's, of the device."""
        self._handle = handle
        self._rank = rank

    @classmethod
    def of(cls, device: torch.device, rank: int) -> GpuReader | None:
        """None for a device that is no GPU, or that NVML does not know."""
        if device.type != "cuda":
            return None
        import torch  # here: the service is simulated where there is no torch

        uuid = torch.cuda.get_device_properties(device).uuid
        try:
            # By its UUID: NVML numbers all devices, also those that this process was not given.
            pynvml.nvmlInit()
            return cls(pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"), rank)
        except pynvml.NVMLError as error:
            logger.warning("no metrics of the GPU: NVML: %s", error)
            return None

    def read(self) -> control.Gpu:
        """A field that this GPU does not report is not set."""
        found = control.Gpu(rank=self._rank)
        rates = _ask(pynvml.nvmlDeviceGetUtilizationRates, self._handle)
        if rates is not None:
            found.utilization = rates.gpu / 100
        milliwatts = _ask(pynvml.nvmlDeviceGetPowerUsage, self._handle)
        if milliwatts is not None:
            found.watts = milliwatts / 1000
        millijoules = _ask(pynvml.nvmlDeviceGetTotalEnergyConsumption, self._handle)
        if millijoules is not None:
            found.joules = millijoules / 1000
        return found


def _ask(call: Callable[[Any], Any], handle: Any) -> Any:
    try:
        return call(handle)
    except pynvml.NVMLError:
        return None  # old and partitioned GPUs do not report everything
