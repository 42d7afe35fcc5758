"""Attention over keys and values that come in pieces, of contexts that are not in one memory as a whole.

Each piece gives an output of its own and, for each query, the logarithm of the sum of its exponentials; by
these the outputs of two pieces become that of both, exactly (FlashAttention, Dao et al. 2022, arXiv
2205.14135; over pieces of the keys as in Flash-Decoding, Dao et al. 2023).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from worker_svc.model.kv_cache import floats

SCORES = 1 << 25
"""Most scores in memory at once: 128 MiB in fp32. The tokens of a streamed slot that are on the device are
one piece, however many they are."""


class Piece(NamedTuple):
    """Keys and values ``[tokens, kv heads, head_dim]``, in any layout whose last dimension is dense; or in
    int8, as the cache has them."""

    keys: Tensor
    values: Tensor
    causal: bool = False  # its tokens are those of the queries, which see themselves and those before them


class Partial(NamedTuple):
    """What queries get of some keys."""

    out: Tensor  # [kv heads, queries of one, rows, head_dim], fp32
    logsumexp: Tensor  # [kv heads, queries of one, rows], fp32


def attend(q: Tensor, pieces: Iterable[Piece]) -> Tensor:
    """``q``: ``[rows, heads, head_dim]``; each row sees all of every piece, of a causal one its part.

    Returns the same shape. A piece is read before the next is asked for. There is at least one, and none is
    empty.
    """
    rows, heads, head_dim = q.shape
    merged = reduce(merge, (partial(q, piece) for piece in pieces))
    return merged.out.permute(2, 0, 1, 3).reshape(rows, heads, head_dim).to(q.dtype)


def partial(q: Tensor, piece: Piece) -> Partial:
    """Of one piece. Query heads that share a KV head are further queries of it, so no key is copied."""
    kv_heads = piece.keys.shape[1]
    rows, heads, head_dim = q.shape
    grouped = q.view(rows, kv_heads, heads // kv_heads, head_dim).permute(1, 2, 0, 3)
    both = piece.keys, piece.values
    if piece.keys.dtype == torch.int8:
        both = floats(piece.keys, q.dtype), floats(piece.values, q.dtype)
    keys, values = (x.transpose(0, 1) for x in both)
    found = _products if q.is_cuda else _fused
    return found(grouped, keys, values, piece.causal)


def merge(first: Partial, second: Partial) -> Partial:
    """What queries get of the keys of both."""
    logsumexp = torch.logaddexp(first.logsumexp, second.logsumexp)
    weights = [(part.logsumexp - logsumexp).exp_().unsqueeze(-1) for part in (first, second)]
    return Partial(torch.addcmul(first.out * weights[0], second.out, weights[1]), logsumexp)


def _fused(q: Tensor, keys: Tensor, values: Tensor, causal: bool) -> Partial:
    """torch's kernel for the CPU. ``q``: ``[kv heads, queries of one, rows, head_dim]``; ``keys``,
    ``values``: ``[kv heads, tokens, head_dim]``."""
    kv_heads, group, rows, head_dim = q.shape
    # Rows of a causal piece are in the order of its keys, so each query of a KV head is a batch entry there.
    folded = q.transpose(0, 1) if causal else q.reshape(1, kv_heads, group * rows, head_dim)
    out, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        folded,
        keys.expand(len(folded), -1, -1, -1),
        values.expand(len(folded), -1, -1, -1),
        is_causal=causal,
    )
    if causal:
        return Partial(out.transpose(0, 1).float(), logsumexp.transpose(0, 1))
    return Partial(out.float().view(q.shape), logsumexp.view(q.shape[:-1]))


def _products(q: Tensor, keys: Tensor, values: Tensor, causal: bool) -> Partial:
    """The same by products of matrices, in fp32, on any device; at most ``SCORES`` at a time."""
    kv_heads, group, rows, _ = q.shape
    most = max(1, SCORES // (kv_heads * group))  # of one query head
    if rows * keys.shape[1] <= most:
        return _product(q, keys, values, causal)
    if not causal:
        tokens = max(1, most // rows)
        parts = zip(keys.split(tokens, 1), values.split(tokens, 1), strict=True)
        return reduce(merge, (_product(q, *part, False) for part in parts))
    half = rows // 2
    earlier = _products(q[:, :, :half], keys[:, :half], values[:, :half], True)
    later = merge(
        _products(q[:, :, half:], keys[:, :half], values[:, :half], False),
        _products(q[:, :, half:], keys[:, half:], values[:, half:], True),
    )
    return Partial(*(torch.cat(both, dim=2) for both in zip(earlier, later, strict=True)))


def _product(q: Tensor, keys: Tensor, values: Tensor, causal: bool) -> Partial:
    """All of it at once."""
    kv_heads, group, rows, head_dim = q.shape
    folded = q.float().reshape(kv_heads, group * rows, head_dim) * head_dim**-0.5
    scores = (folded @ keys.float().transpose(1, 2)).view(kv_heads, group, rows, -1)
    if causal:
        later = torch.ones(rows, rows, dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    logsumexp = scores.logsumexp(-1)
    weights = (scores - logsumexp.unsqueeze(-1)).exp_().view(kv_heads, group * rows, -1)
    return Partial((weights @ values.float()).view(q.shape), logsumexp)
