"""Products of quantized rows with quantized weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.worker_svc.kernels.builds import BUILDS, native
from worker_svc.kernels.native_weights import Int8Weight
from worker_svc.kernels.rounding import hadamard

DTYPES = st.sampled_from([torch.float32, torch.bfloat16])


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rotated(x: Tensor, part: int) -> Tensor:
    """Rows in fp64, ``part`` inputs at a time; 0: as they are."""
    if not part:
        return x.double()
    parts = x.double().unflatten(1, (-1, part))
    return torch.matmul(parts, hadamard(part).double()).flatten(1)


def dequantized(x: Tensor) -> Tensor:
    """Rows rounded to 127 steps up to their largest number, either side of zero, halves upwards: fp64."""
    top = x.abs().amax(1, keepdim=True)
    return torch.where(top > 0, (x * (127 / top) + 0.5).floor() * top / 127, 0.0)


def unpacked(weight: Int8Weight) -> Tensor:
    """``[outputs, inputs]`` fp64, rotated as it is."""
    numbers = weight.packed.transpose(1, 2).flatten(2).flatten(0, 1)
    return numbers.double() * weight.scales.double()[:, None]


def as_it_is(weight: Tensor) -> Int8Weight:
    """Not rotated, as quantized checkpoints are."""
    scales = weight.abs().amax(1) / 127
    return Int8Weight((weight / scales[:, None]).round().to(torch.int8), scales)


@given(
    BUILDS,
    DTYPES,
    st.sampled_from([1, 2, 12, 13, 30, 70]),
    st.sampled_from([32, 96, 640]),
    st.sampled_from([16, 32, 64, 96, 576, 912]),
    st.sampled_from([Int8Weight.of, as_it_is]),
    st.booleans(),
    st.integers(0, 99),
)
def test_it_is_the_product_of_what_was_rounded(
    build: str,
    dtype: torch.dtype,
    rows: int,
    outputs: int,
    inputs: int,
    quantize: Callable[[Tensor], Int8Weight],
    with_bias: bool,
    seed: int,
) -> None:
    kernels = native(dtype, build)
    weight = random(seed, outputs, inputs) * random(seed + 1, outputs, 1)
    if not kernels.multiplies_int8(*weight.shape):
        return  # this build has no products of bytes
    x = (random(seed + 2, rows, inputs) * random(seed + 3, rows, 1).exp()).to(dtype)
    bias = random(seed + 4, outputs).to(dtype) if with_bias else None
    int8 = quantize(weight)
    turned = rotated(x, int8.part)
    exact = dequantized(turned) @ unpacked(int8).T
    if bias is not None:
        exact += bias.double()
    wide = torch.empty(rows, outputs)
    assert kernels.matmul(x, int8, bias, wide) is wide
    assert torch.equal(wide.to(dtype), kernels.matmul(x, int8, bias))
    found = wide.double()
    # Numbers all but half way between two steps may be rounded either way: a step of a row, times a weight.
    unit = turned.abs().amax(1, keepdim=True) / 127
    halves = ((turned / unit).frac().abs() - 0.5).abs() < 1e-3
    either = torch.where(halves, unit, 0.0) @ unpacked(int8).abs().T
    assert bool(((found - exact).abs() <= (exact.abs() + either) * 1e-5 + either + 1e-5).all())


@pytest.mark.parametrize("inputs", [16, 96, 640])
def test_inputs_far_larger_than_the_others_leave_these_their_bits(inputs: int) -> None:
    kernels, weight = native(torch.float32), random(0, 64, inputs)
    if not kernels.multiplies_int8(*weight.shape):
        pytest.skip("this CPU has no products of bytes")
    x = random(1, 30, inputs)
    x[:, 3] *= 100
    weight[:, 3] /= 100
    exact = x.double() @ weight.double().T

    def error(int8: Int8Weight) -> float:
        found = kernels.matmul(x, int8, None).double()
        return float((found - exact).norm() / exact.norm())

    assert error(Int8Weight.of(weight)) < 0.5 * error(as_it_is(weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_any_size(dtype: torch.dtype) -> None:
    """Zeros, the smallest and the largest numbers, and what is not a number: each row by itself."""
    kernels, weight = native(dtype), random(0, 32, 32)
    if not kernels.multiplies_int8(*weight.shape):
        pytest.skip("this CPU has no products of bytes")
    x = torch.stack([torch.full((32,), size) for size in (0.0, 1e-38, 1e30, 1.0, 1.0, 1.0)]).to(dtype)
    x[4, 7], x[5, 9] = torch.nan, -torch.inf
    found = kernels.matmul(x, Int8Weight.of(weight), None).double()
    assert bool((found[:2].abs() < 1e-30).all())
    torch.testing.assert_close(found[2], found[3] * 1e30, rtol=1e-2, atol=0.0)
    torch.testing.assert_close(found[3], weight.double().sum(1), rtol=2e-2, atol=5e-2)
    assert found.isnan().all(1).tolist() == [False, False, False, False, True, True]


def test_a_weight_is_rounded_to_steps_of_its_output() -> None:
    weight = random(1, 64, 48) * random(2, 64, 1)
    int8 = Int8Weight.of(weight)
    turned = rotated(weight, int8.part)
    error = (unpacked(int8) - turned).abs()
    assert bool((error <= int8.scales.double()[:, None] * 0.5001).all())
    torch.testing.assert_close(int8.scales, turned.abs().amax(1).float() / 127)
    torch.testing.assert_close(rotated(turned, int8.part), weight.double())


def test_a_weight_of_zeros_stays_zero() -> None:
    weight = Int8Weight.of(torch.zeros(32, 16))
    assert not weight.packed.any()
    assert weight.scales.isfinite().all()
