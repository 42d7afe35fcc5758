"""From the host's arrays to tensors on the device: all of a step's input but the ids of decoding rows.

On CUDA the copies run on a stream of their own, out of pinned memory; the compute stage waits for them
with an event, on the device. Pinned memory comes from torch's caching host allocator, which hands a
buffer out again only after the copies out of it are done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from albireo.plan import BLOCK_SIZE
from worker_svc.model.attention import AttentionPlan, ChunkView, DecodeGroup
from worker_svc.random_numbers import uniforms
from worker_svc.sampler import SamplingTensors
from worker_svc.slot_table import Floats, HostBatch, Ints, SampleRows


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One step on the device. ``host`` names its rows; ``ready`` is None where copies are synchronous."""

    host: HostBatch
    decode_slots: Tensor
    chunk_ids: Tensor
    positions: Tensor
    kv_rows: Tensor
    attention: AttentionPlan
    sample_rows: Tensor
    sample_slots: Tensor
    sampling: SamplingTensors
    copied: tuple[Tensor, ...]  # what the copy stream allocated
    ready: torch.cuda.Event | None


class Staging:
    """Copies batches to one device; used by the input stage alone."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        """``dtype``: of the attention masks, that is of the model."""
        self._device = device
        self._dtype = dtype
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def stage(self, batch: HostBatch) -> StepBatch:
        if self._stream is None:
            return self._copy(batch, None)
        with torch.cuda.stream(self._stream):
            # A fresh event each step: a reused one could be recorded again before it was waited for.
            return self._copy(batch, torch.cuda.Event())

    def _copy(self, batch: HostBatch, ready: torch.cuda.Event | None) -> StepBatch:
        samples = batch.samples
        greedy = np.flatnonzero(samples.temperature == 0)
        drawn = np.flatnonzero(samples.temperature != 0)
        wanted = np.flatnonzero(samples.logprobs >= 0)
        arrays = [
            batch.decode_slots,
            batch.chunk_ids,
            batch.positions,
            batch.kv_rows,
            samples.rows,
            samples.slots,
            greedy,
            drawn,
            wanted,
            samples.top_k[drawn],
            samples.masked_rows,
            samples.masked_ids,
            *(group.blocks.ravel() for group in batch.decodes),
            *(group.contexts for group in batch.decodes),
            *(chunk.blocks for chunk in batch.chunks),
            batch.fresh,
        ]
        ints = self._to_device(np.concatenate(arrays))
        floats = self._to_device(
            np.concatenate(
                [
                    samples.temperature[drawn],
                    samples.top_p[drawn],
                    samples.min_p[drawn],
                    uniforms(samples.seeds[drawn], samples.positions[drawn]),
                ]
            )
        )
        pieces = ints.split([len(array) for array in arrays])
        attention = self._attention(batch, pieces[12:])
        masks = [g.mask for g in attention.decodes] + [c.mask for c in attention.chunks]
        staged = StepBatch(
            host=batch,
            decode_slots=pieces[0],
            chunk_ids=pieces[1],
            positions=pieces[2],
            kv_rows=pieces[3],
            attention=attention,
            sample_rows=pieces[4],
            sample_slots=pieces[5],
            sampling=_sampling(samples, drawn, pieces[6:12], floats.view(4, len(drawn))),
            copied=(ints, floats, *masks),
            ready=ready,
        )
        if ready is not None:
            ready.record(self._stream)
        return staged

    def _to_device(self, array: Ints | Floats) -> Tensor:
        host = torch.from_numpy(array)
        if self._stream is None:
            return host
        return host.pin_memory().to(self._device, non_blocking=True)

    def _attention(self, batch: HostBatch, pieces: Sequence[Tensor]) -> AttentionPlan:
        count = len(batch.decodes)
        decodes = tuple(
            DecodeGroup(
                group.first,
                len(group.contexts),
                blocks,
                self._mask(contexts - 1, group.blocks.shape[1])[:, None, None],
            )
            for group, blocks, contexts in zip(
                batch.decodes, pieces[:count], pieces[count : 2 * count], strict=True
            )
        )
        chunks = tuple(
            ChunkView(
                chunk.first,
                chunk.count,
                blocks,
                self._mask(
                    torch.arange(chunk.start, chunk.start + chunk.count, device=self._device),
                    len(chunk.blocks),
                )[None, None],
            )
            for chunk, blocks in zip(batch.chunks, pieces[2 * count : -1], strict=True)
        )
        return AttentionPlan(decodes, chunks, fresh=pieces[-1])

    def _mask(self, positions: Tensor, blocks: int) -> Tensor:
        """``[n, blocks * 16]`` to add to scores: each position sees itself and what comes before."""
        keys = torch.arange(blocks * BLOCK_SIZE, device=self._device)
        mask = torch.zeros(len(positions), len(keys), dtype=self._dtype, device=self._device)
        return mask.masked_fill_(keys > positions[:, None], -torch.inf)


def _sampling(samples: SampleRows, drawn: Ints, ints: Sequence[Tensor], floats: Tensor) -> SamplingTensors:
    greedy, drawn_rows, wanted, top_k, masked_rows, masked_ids = ints
    return SamplingTensors(
        greedy=greedy,
        drawn=drawn_rows,
        temperature=floats[0].float(),
        top_k=top_k,
        top_p=floats[1].float(),
        min_p=floats[2].float(),
        uniforms=floats[3],
        max_top_k=int(samples.top_k[drawn].max(initial=0)),
        any_top_p=bool((samples.top_p[drawn] < 1).any()),
        any_min_p=bool((samples.min_p[drawn] > 0).any()),
        masked_rows=masked_rows,
        masked_ids=masked_ids,
        logprob_rows=wanted,
        max_logprobs=int(samples.logprobs.max(initial=0)),
    )
