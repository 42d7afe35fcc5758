"""Which kernels a rank runs: chosen once, when the model is loaded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from worker_svc.kernels.interface import Heads
from worker_svc.kernels.library import load
from worker_svc.kernels.native import NativeInt8Products, NativeKernels, fits
from worker_svc.kernels.quantized import QuantizedProducts
from worker_svc.kernels.rounding import PlainRounding
from worker_svc.kernels.scaled_products import ScaledProducts, tried_products

if TYPE_CHECKING:
    from worker_svc.kernels.triton_kernels import TritonKernels

logger = logging.getLogger(__name__)

WITHOUT_TRITON = (
    "%s: torch's operations run in place of Triton's kernels, and decode steps not as CUDA graphs"
)
TRITON_DTYPES = torch.bfloat16, torch.float16, torch.float32
TRITON_DIM, TRITON_WIDTH = 256, 1 << 16
"""Largest head and largest row that Triton's kernels take."""


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


def quantized_products(
    kind: torch.dtype,
    device: torch.device,
    dtype: torch.dtype,
    native: NativeKernels | None,
    triton: TritonKernels | None = None,
) -> QuantizedProducts:
    """Of weights in ``kind``, int8 or float8_e4m3fn, and rows in ``dtype``. Raises RuntimeError where there
    are none. ``native``: the kernels of a CPU, which alone multiply int8 there. ``triton``: those of a
    GPU."""
    if device.type != "cpu" or kind != torch.int8:
        # First without Triton: where torch has none, Triton does not compile for the type either, and says so
        # less clearly.
        products = tried_products(kind, device, dtype, PlainRounding())
        return products if triton is None else _rounded_by_triton(products, device, dtype, triton)
    if native is None or not native.has_int8:
        raise RuntimeError(
            "takes a CPU with AVX512-VNNI, native kernels that are compiled, and a model whose widths are "
            "multiples of 16"
        )
    return NativeInt8Products(native)


def _rounded_by_triton(
    products: ScaledProducts, device: torch.device, dtype: torch.dtype, triton: TritonKernels
) -> ScaledProducts:
    """``products`` themselves where it does not run."""
    from worker_svc.kernels.triton_kernels import compiler_errors  # needed on CUDA only

    try:
        with compiler_errors():
            return tried_products(products.dtype, device, dtype, triton.rounding)
    except RuntimeError as error:
        logger.warning("torch's operations round rows to 8 bits: Triton does not run here (%s)", error)
        return products


def triton_kernels(
    device: torch.device, dtype: torch.dtype, hidden: int, heads: Heads, head_dim: int
) -> TritonKernels | None:
    """None where they do not run. Compiles and runs them once, with rows of ``hidden`` numbers and the
    ``heads`` of a rank."""
    if device.type != "cuda":
        return None
    if find_spec("triton") is None:
        logger.warning(WITHOUT_TRITON, "Triton is not installed")
        return None
    if dtype not in TRITON_DTYPES or head_dim % 2 or head_dim > TRITON_DIM or hidden > TRITON_WIDTH:
        logger.warning(WITHOUT_TRITON, f"{dtype} or a width of this model is not among those of the kernels")
        return None
    try:
        from worker_svc.kernels.triton_kernels import tried_kernels  # needed on CUDA only

        kernels = tried_kernels(device, dtype, hidden, heads, head_dim)
    except (ImportError, RuntimeError) as error:
        logger.warning(WITHOUT_TRITON, f"Triton does not run here ({error})")
        return None
    logger.info("norms, gates, rotation and attention by Triton's kernels")
    return kernels
