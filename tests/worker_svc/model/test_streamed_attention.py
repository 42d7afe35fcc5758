"""Attention in pieces against one softmax over all keys, in fp64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from worker_svc.model import streamed_attention
from worker_svc.model.streamed_attention import Piece, attend

DTYPES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""And what rounding may change: scores reach 30 here."""


def by_one_softmax(q: Tensor, keys: Tensor, values: Tensor, causal: int) -> Tensor:
    """The last ``causal`` tokens are those of the rows."""
    _, heads, head_dim = q.shape
    group = heads // keys.shape[1]
    keys, values = (x.double().repeat_interleave(group, dim=1).transpose(0, 1) for x in (keys, values))
    scores = q.double().transpose(0, 1) @ keys.transpose(1, 2) / head_dim**0.5
    if causal:
        scores[:, :, -causal:] += torch.full((causal, causal), -torch.inf, dtype=torch.float64).triu(1)
    found: Tensor = (scores.softmax(-1) @ values).transpose(0, 1)
    return found


@pytest.mark.parametrize("way", [streamed_attention._fused, streamed_attention._products])
@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None)
@given(
    rows=st.integers(1, 40),
    group=st.sampled_from([1, 2, 7]),
    kv_heads=st.sampled_from([1, 2, 3]),
    sizes=st.lists(st.integers(1, 70), max_size=5),
    own=st.booleans(),
    scale=st.sampled_from([0.0, 1.0, 8.0]),
    at_once=st.sampled_from([1, 64, 1 << 25]),
    seed=st.integers(0, 2**32),
)
def test_pieces_of_any_size_bring_what_one_softmax_brings(
    way: Callable[..., object],
    dtype: torch.dtype,
    rows: int,
    group: int,
    kv_heads: int,
    sizes: list[int],
    own: bool,
    scale: float,
    at_once: int,
    seed: int,
) -> None:
    draw = torch.Generator().manual_seed(seed)
    sizes = [*sizes, rows] if own or not sizes else sizes
    causal = rows if own or sizes == [rows] else 0
    q = (torch.randn(rows, group * kv_heads, 16, generator=draw) * scale).to(dtype)
    keys, values = torch.randn(2, sum(sizes), kv_heads, 16, generator=draw).to(dtype)
    pieces = [Piece(*both) for both in zip(keys.split(sizes), values.split(sizes), strict=True)]
    if causal:
        pieces[-1] = pieces[-1]._replace(causal=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streamed_attention, "_fused", way)
        patch.setattr(streamed_attention, "SCORES", at_once)
        found = attend(q, iter(pieces))
    assert found.dtype is dtype
    expected = by_one_softmax(q, keys, values, causal)
    torch.testing.assert_close(found.double(), expected, atol=DTYPES[dtype] * 2, rtol=DTYPES[dtype])


@pytest.mark.parametrize("way", [streamed_attention._fused, streamed_attention._products])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [3.0, 3000.0])
def test_scores_of_which_one_takes_all(way: Callable[..., object], dtype: torch.dtype, scale: float) -> None:
    """Or two in different pieces share it. What rounding changes grows with the logarithms, in fp32."""
    q = (torch.ones(3, 2, 64) * torch.tensor([1.0, -1.0, 0.5])[:, None, None] * scale).to(dtype)
    keys, values = torch.randn(2, 40, 1, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    keys[[0, 7, 39]] = 2.0  # alone in its piece, and in two others
    keys[[1, 8]] = -2.0
    pieces = [Piece(*both) for both in zip(keys.split([1, 9, 30]), values.split([1, 9, 30]), strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streamed_attention, "_fused", way)
        found = attend(q, pieces)
    expected = by_one_softmax(q, keys, values, 0)
    rounding = 2 * DTYPES[dtype] + 16 * scale * 2**-22  # 16: of a key of twos, the largest score
    torch.testing.assert_close(found.double(), expected, atol=rounding, rtol=rounding)


class Products(TorchDispatchMode):
    """Notes the largest product of two matrices."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.bmm.default:
            self.most = max(self.most, found.numel())
        return found


@pytest.mark.parametrize("causal", [False, True])
def test_scores_in_memory_do_not_grow_with_the_tokens(monkeypatch: pytest.MonkeyPatch, causal: bool) -> None:
    monkeypatch.setattr(streamed_attention, "SCORES", 1 << 14)
    monkeypatch.setattr(streamed_attention, "_fused", streamed_attention._products)
    q = torch.randn(200, 4, 16)
    keys, values = torch.randn(2, 200 if causal else 3000, 2, 16)
    with Products() as products:  # type: ignore[no-untyped-call]
        attend(q, [Piece(keys, values, causal)])
    assert 0 < products.most <= 1 << 14


def test_a_piece_is_read_before_the_next_comes() -> None:
    """So that the next may lie in the same memory."""
    q = torch.randn(1, 2, 16)
    keys, values = torch.randn(2, 3, 8, 2, 16)
    memory = torch.empty(2, 8, 2, 16)

    def pieces() -> object:
        for both in zip(keys, values, strict=True):
            memory.copy_(torch.stack(both))
            yield Piece(*memory)

    found = attend(q, pieces())  # type: ignore[arg-type]
    expected = by_one_softmax(q, keys.flatten(0, 1), values.flatten(0, 1), 0)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_rows_that_lie_in_a_wider_tensor() -> None:
    """As the queries of a step do, next to its keys."""
    qkv = torch.randn(5, 10, 16)
    found = attend(qkv[:, :4], [Piece(qkv[:, 4:6], qkv[:, 6:8], causal=True)])
    expected = by_one_softmax(qkv[:, :4], qkv[:, 4:6], qkv[:, 6:8], 5)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
