"""FlashAttention 3 (Shah et al. 2024, arXiv 2407.08608) for chunks on Hopper, as torch calls it.

The kernels are those of its package, `flash_attn_interface`. Those of FlashAttention 2, which torch brings,
take pages of 256 tokens and no smaller ones.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor
from torch.nn.attention import activate_flash_attention_impl, restore_flash_attention_impl
from torch.nn.attention.varlen import varlen_attn_out

from albireo.contract.plan import BLOCK_SIZE, blocks_for
from worker_svc.kernels.interface import AttendChunks, Chunks

CAUSAL = -1, 0
"""All tokens before a row's own, and none behind it."""


def activate() -> FlashAttention:
    """Puts the package's kernels in the place of torch's, in this process. Raises ImportError without the
    package, RuntimeError for one that has not what torch calls."""
    activate_flash_attention_impl("FA3")
    return FlashAttention()


def deactivate() -> None:
    restore_flash_attention_impl(_raise_warn=False)


class FlashAttention:
    """See :class:`worker_svc.kernels.interface.ChunkAttention`. Calls what is active."""

    name = "FlashAttention 3"

    def __init__(self) -> None:
        # It has a line for each call.
        logging.getLogger(varlen_attn_out.__module__).setLevel(logging.WARNING)

    def of_step(self, chunks: Chunks) -> AttendChunks:
        tables, lengths, firsts = dense_tables(chunks), _lengths(chunks), chunks.firsts.int()
        most_rows, most_tokens = max(chunks.counts), tables.shape[1] * BLOCK_SIZE

        def attend(q: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
            varlen_attn_out(
                out,
                q,
                keys,
                values,
                firsts,
                None,
                most_rows,
                most_tokens,
                window_size=CAUSAL,
                enable_gqa=True,
                seqused_k=lengths,
                block_table=tables,
            )

        return attend


def dense_tables(chunks: Chunks) -> Tensor:
    """``[c, blocks of the longest]`` int32: shorter ones are padded with blocks that are not read."""
    most = blocks_for(max(chunks.contexts))
    columns = torch.arange(most, device=chunks.starts.device)
    at = (chunks.starts.unsqueeze(1) + columns).clamp_(max=len(chunks.blocks) - 1)
    return chunks.blocks.take(at).int()


def _lengths(chunks: Chunks) -> Tensor:
    """``contexts`` on the device, ``[c]`` int32."""
    return chunks.positions.take(chunks.firsts[1:] - 1).add_(1).int()
