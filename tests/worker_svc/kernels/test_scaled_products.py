"""Products by torch's scaled products of matrices, which CPUs have too. On a GPU: `test_gpu_quantized`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from worker_svc.kernels.quantized import QuantizedProducts
from worker_svc.kernels.rounding import (
    LARGEST,
    PlainRounding,
    Rounding,
    hadamard,
    part_of,
    rounded,
    rounded_weight,
)
from worker_svc.kernels.scaled_products import FP8, ScaledProducts, ScaledWeight, tried_products

CPU = torch.device("cpu")
PLAIN = PlainRounding()
KINDS = pytest.mark.parametrize("kind", [torch.int8, FP8], ids=["int8", "fp8"])


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def check_product(
    products: QuantizedProducts, rounding: Rounding, weight: Tensor, x: Tensor, bias: Tensor | None
) -> None:
    """``products``: those of :mod:`worker_svc.kernels.scaled_products`, with ``rounding``."""
    kind, rows = products.dtype, len(x)
    rotation = hadamard(part_of(x.shape[1])).to(x.device) if kind == torch.int8 else None
    numbers, scales = rounding.rounded(x, kind, rotation)
    own, others = rounded_weight(weight, kind, rotation)
    parts = numbers[:rows].double() * scales.double(), (own.double() * others.double()[:, None]).T
    exact, size = parts[0] @ parts[1], parts[0].abs() @ parts[1].abs()
    if bias is not None:
        bias = bias.to(x)
        exact += bias.double()
        size += bias.double().abs()
    product = products.nearest(weight)
    assert isinstance(product, ScaledWeight)
    found = product.multiply(x, bias)
    assert found.dtype == x.dtype
    last = 2**-7 if x.dtype == torch.bfloat16 else 1e-5
    assert bool(((found.double() - exact).abs() <= size * last).all())


def spread(seed: int, *shape: int) -> Tensor:
    """Rows of many sizes."""
    return random(seed, *shape) * random(seed + 1, shape[0], 1).exp()


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 1, 16, 17, 33])
@pytest.mark.parametrize(("outputs", "inputs"), [(16, 16), (48, 80), (32, 576)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_it_is_the_product_of_what_was_rounded(
    kind: torch.dtype, dtype: torch.dtype, rows: int, outputs: int, inputs: int, with_bias: bool
) -> None:
    weight, x = spread(1, outputs, inputs).to(dtype), spread(3, rows, inputs).to(dtype)
    check_product(ScaledProducts(kind, PLAIN), PLAIN, weight, x, random(5, outputs) if with_bias else None)


@KINDS
def test_numbers_of_a_checkpoint_are_multiplied_as_they_are(kind: torch.dtype) -> None:
    numbers, scales = rounded(random(0, 32, 64), kind)
    x = random(1, 5, 64)
    found = ScaledProducts(kind, PLAIN).weight(numbers, scales.flatten()).multiply(x, None)
    own, own_scales = rounded(x, kind)
    exact = (own.double() * own_scales.double()) @ (numbers.double() * scales.double()).T
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)


@KINDS
def test_a_row_is_rounded_to_the_nearest_steps_of_its_scale(kind: torch.dtype) -> None:
    rows = spread(0, 9, 64)
    numbers, scales = rounded(rows, kind)
    assert numbers.dtype == kind
    torch.testing.assert_close(scales * LARGEST[kind], rows.abs().amax(1, keepdim=True))
    error = (numbers.double() * scales - rows).abs() / scales
    # E4M3 has 3 bits behind the first, down to 2^-9.
    step = torch.full_like(error, 1.0) if kind == torch.int8 else (rows / scales).abs() / 8 + 2**-9
    assert bool((error <= step * 0.501).all())


def test_inputs_far_larger_than_the_others_leave_these_their_bits() -> None:
    x, weight = random(1, 30, 128), random(0, 64, 128)
    x[:, 3] *= 100
    weight[:, 3] /= 100
    exact = x.double() @ weight.double().T

    def error(found: Tensor) -> float:
        return float((found.double() - exact).norm() / exact.norm())

    numbers, scales = rounded(weight, torch.int8)
    products = ScaledProducts(torch.int8, PLAIN)
    rotated = error(products.nearest(weight).multiply(x, None))
    assert rotated < 0.5 * error(products.weight(numbers, scales.flatten()).multiply(x, None))


@KINDS
def test_what_is_no_number_stays_with_its_row(kind: torch.dtype) -> None:
    x = torch.stack([torch.full((32,), size) for size in (0.0, 1e-38, 1e30, 1.0, 1.0, 1.0)])
    x[4, 7], x[5, 9] = torch.nan, -torch.inf
    weight = random(0, 32, 32)
    found = ScaledProducts(kind, PLAIN).nearest(weight).multiply(x, None).double()
    assert bool((found[:2].abs() < 1e-30).all())
    torch.testing.assert_close(found[2], found[3] * 1e30, rtol=1e-2, atol=0.0)
    torch.testing.assert_close(found[3], weight.double().sum(1), rtol=0.1, atol=0.3)
    assert found.isfinite().all(1).tolist() == [True] * 4 + [False] * 2
    assert not found[4].isfinite().any()


@KINDS
def test_a_large_weight_is_rounded_output_by_output(kind: torch.dtype) -> None:
    """More outputs than are rounded at a time."""
    weight = random(0, 5000, 16)
    x = torch.eye(16)
    whole = ScaledProducts(kind, PLAIN).nearest(F.pad(weight, (0, 0, 0, 8))).multiply(x, None)
    for some in (slice(0, 16), slice(4992, 5008)):
        own = ScaledProducts(kind, PLAIN).nearest(F.pad(weight, (0, 0, 0, 8))[some]).multiply(x, None)
        torch.testing.assert_close(whole[:, some], own)


@KINDS
def test_shapes(kind: torch.dtype) -> None:
    products = ScaledProducts(kind, PLAIN)
    assert products.takes(16, 48)
    assert not products.takes(24, 48)
    assert not products.takes(16, 40)


def broken(error: Exception | None) -> Any:
    """An operator that raises, or brings zeros."""

    def multiply(a: Tensor, b: Tensor, *_: Any, **__: Any) -> Tensor:
        if error is not None:
            raise error
        return torch.zeros(len(a), b.shape[1])

    return multiply


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (None, "bring wrong numbers"),
        (ValueError("Only bf16"), "Only bf16"),
        (NotImplementedError("capability >= 8.9"), "8.9"),
    ],
)
def test_a_device_that_cannot_is_refused(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, message: str
) -> None:
    assert tried_products(FP8, CPU, torch.bfloat16, PLAIN).dtype == FP8
    monkeypatch.setattr(F, "scaled_mm", broken(error))
    monkeypatch.setattr(torch, "_int_mm", broken(error))
    for kind in (FP8, torch.int8):
        with pytest.raises(RuntimeError, match=message):
            tried_products(kind, CPU, torch.bfloat16, PLAIN)
