"""Which kernels a rank runs: chosen once, when the model is loaded."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from worker_svc.kernels.library import load
from worker_svc.kernels.native import NativeKernels, fits

logger = logging.getLogger(__name__)


def native_kernels(
    device: torch.device, dtype: torch.dtype, widths: Sequence[int], head_dim: int, *, int8_kv: bool = False
) -> NativeKernels | None:
    """None where they do not run. ``widths``: of a rank's rows, in numbers of ``dtype``. ``int8_kv``: the KV
    cache is in 8 bits."""
    if device.type != "cpu":
        return None
    library = load()
    if library is None:
        logger.warning("no native kernels that were compiled run on this CPU: torch's operations are slower")
    elif not fits(dtype, widths, head_dim):
        logger.info("the native kernels do not take this model's widths: torch's operations are slower")
    else:
        return NativeKernels(library, dtype, int8_kv=int8_kv)
    return None
