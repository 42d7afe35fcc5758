"""What a layer does besides products of matrices: the model calls it, row by row.

A row is one token of the step; ``n`` is their number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Norm:
    """Root-mean-square norm over the last dimension (Zhang and Sennrich 2019, arXiv 1910.07467)."""

    weight: Tensor
    eps: float


@dataclass(frozen=True, slots=True)
class Heads:
    """Of this rank: how many, and the norms of queries and keys where the model has them."""

    queries: int
    kv: int
    q_norm: Norm | None = None
    k_norm: Norm | None = None


class Kernels(Protocol):
    """Each one is an operation of a layer as a whole, which a device may run as one."""

    def norm(self, x: Tensor, norm: Norm, added: Tensor | None = None) -> Tensor:
        """Of ``x`` ``[n, hidden]``. ``added``, of the same shape, is added to ``x`` in place before."""
        ...

    def gate(self, gate_up: Tensor) -> Tensor:
        """``[n, 2 * units]`` to ``[n, units]``: SiLU of the first half, times the second."""
        ...

    def rotate(
        self,
        qkv: Tensor,
        heads: Heads,
        rope: tuple[Tensor, Tensor],
        keys: Tensor,
        values: Tensor,
        kv_rows: Tensor,
    ) -> Tensor:
        """The queries ``[n, heads, head_dim]`` of ``qkv`` ``[n, (heads + 2 * kv heads) * head_dim]``.

        Keys and values go into the cache, ``[blocks, 16, kv heads, head_dim]`` each, at ``kv_rows`` ``[n]``:
        block * 16 + offset. ``rope``: cosines and sines ``[n, 1, head_dim / 2]``.
        """
        ...


class RaggedAttention(Protocol):
    """Attention to the blocks of the cache where they are: ``keys`` and ``values`` as :meth:`Kernels.rotate`
    leaves them, of which a row sees the tokens up to its position, its own included.

    ``q`` ``[n, heads, head_dim]``, ``positions`` ``[n]``; what is found goes into ``out``, which is as ``q``.
    Nothing that the host does depends on what ``positions`` and block tables hold.
    """

    def decode(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        blocks: Tensor,
        starts: Tensor,
        positions: Tensor,
        out: Tensor,
    ) -> None:
        """Of rows of as many requests. ``blocks`` holds their block tables, each as long as its context;
        that of row i is from ``starts[i]`` on."""
        ...

    def chunks(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        blocks: Tensor,
        starts: Tensor,
        firsts: Tensor,
        positions: Tensor,
        out: Tensor,
    ) -> None:
        """Of the rows of ``c`` chunks, of which none is empty, each of consecutive tokens of one request.

        The block table of chunk i is from ``starts[i]`` on, ``[c]``; its rows are from ``firsts[i]`` to
        before ``firsts[i + 1]``, ``[c + 1]``.
        """
        ...


@dataclass(frozen=True, slots=True)
class Chunks:
    """All prefill chunks of a step, as :meth:`RaggedAttention.chunks` describes them."""

    blocks: Tensor
    starts: Tensor
    firsts: Tensor
    positions: Tensor
    # The host knows these, so that it need not wait for the device to ask for them:
    counts: tuple[int, ...]  # rows of each
    contexts: tuple[int, ...]  # tokens that the last row of each sees


AttendChunks = Callable[[Tensor, Tensor, Tensor, Tensor], None]
"""Of one layer: ``q``, ``keys``, ``values`` and ``out`` as :class:`RaggedAttention` takes them."""


class ChunkAttention(Protocol):
    """Attention of prefill chunks; the compute stage calls it. Nothing waits for the device."""

    name: str
    """For people."""

    def of_step(self, chunks: Chunks) -> AttendChunks:
        """Prepares what all layers of a step share; each of them then calls what is returned. Good until the
        next call."""
        ...
