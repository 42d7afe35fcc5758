"""From the host's arrays to tensors on the device: all of a step's input but the ids of decoding rows.

On CUDA the copies run on a stream of their own, out of pinned memory; the compute stage waits for them
with an event, on the device. On the CPU the same buffers are filled, and nothing needs copying.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from albireo.contract.plan import BLOCK_SIZE
from worker_svc.batch.buckets import Bucket
from worker_svc.batch.slot_table import HostBatch
from worker_svc.buffers.arrays import Ints
from worker_svc.buffers.packing import Packing, Place, unpack
from worker_svc.buffers.staging_ring import Lease, StagingRing
from worker_svc.model.attention import AttentionPlan, ChunkView, DecodeGroup
from worker_svc.model.causal_mask import CausalMasks
from worker_svc.sampling.controls import NO_IDS
from worker_svc.sampling.layout import SampleLayout, SamplingPolicy
from worker_svc.sampling.packing import SamplingPacker
from worker_svc.sampling.prompt import PromptTensors
from worker_svc.sampling.tensors import SamplingTensors


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One step on the device. ``host`` names its rows.

    All tensors but the masks are views of ``lease.words``: they hold the step until it is executed, and
    another one later. With a ``bucket`` the step runs as a graph, whose input ``lease.words`` begins with;
    ``attention`` is empty then.
    """

    host: HostBatch
    lease: Lease
    bucket: Bucket | None
    decode_slots: Tensor
    decode_ids: Tensor | None  # None: they are on the device, in ``last_token``
    chunk_ids: Tensor
    positions: Tensor
    kv_rows: Tensor
    attention: AttentionPlan
    fresh: Tensor  # blocks to clear first: just granted to the step's requests, and not a prefix hit
    sample_rows: Tensor
    sample_slots: Tensor
    layout: SampleLayout
    sampling: SamplingTensors
    prompts: PromptTensors | None  # rows of chunks that tell of their prompt

    def await_copies(self) -> None:
        """Compute stage: its current stream waits, on the device, for what the copy stream does."""
        self.lease.wait()
        masks = [group.mask for group in self.attention.decodes]
        for mask in masks + [chunk.mask for chunk in self.attention.chunks]:
            if mask.is_cuda:
                # The copy stream's allocator owns it, and must not hand it out before we are done.
                mask.record_stream(torch.cuda.current_stream(mask.device))


class Staging:
    """Copies batches to one device; used by the input stage alone."""

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        max_model_len: int,
        policy: SamplingPolicy | None = None,
    ) -> None:
        """``dtype``: of the attention masks, that is of the model. ``policy``: None for a group of one."""
        self._device = device
        self._policy = policy or SamplingPolicy()
        self._sampling = SamplingPacker(self._policy, narrow=device.type == "cpu")
        self._masks = CausalMasks(max_model_len, dtype, device)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(device))  # which fills the masks' vector
        self._ring = StagingRing(device, self._stream)

    @property
    def waited(self) -> float:
        """Seconds spent so far on waiting for a buffer."""
        return self._ring.waited

    def stage(
        self, batch: HostBatch, decode_ids: Ints | None = None, bucket: Bucket | None = None
    ) -> StepBatch:
        """``decode_ids``: tokens of the decoding rows, in synchronous mode.

        ``bucket``: ``batch`` is padded to it, and will run as a graph. Raises RuntimeError where more steps
        are staged than the ring holds.
        """
        if self._stream is None:
            return self._stage(batch, decode_ids, bucket)
        with torch.cuda.stream(self._stream):
            return self._stage(batch, decode_ids, bucket)

    def _stage(self, batch: HostBatch, decode_ids: Ints | None, bucket: Bucket | None) -> StepBatch:
        samples, packing = batch.samples, Packing()
        layout = self._policy.layout(samples.slots)
        # A graph's input, in one piece.
        rows = [packing.add(array) for array in (batch.decode_slots, batch.positions, batch.kv_rows)]
        blocks = [packing.add(group.blocks) for group in batch.decodes]
        contexts = [packing.add(group.contexts) for group in batch.decodes]
        chunks = [packing.add(chunk.blocks) for chunk in batch.chunks]
        rows += [
            packing.add(array)
            for array in (
                decode_ids if decode_ids is not None else NO_IDS,
                batch.chunk_ids,
                batch.fresh,
                samples.rows,
                samples.slots,
                np.concatenate([NO_IDS, *(prompt.rows for prompt in batch.prompts)]),
                np.concatenate([NO_IDS, *(prompt.targets for prompt in batch.prompts)]),
            )
        ]
        sampling = self._sampling.pack(samples, batch.penalties, layout, packing)
        lease = self._ring.take(packing.size)
        packing.fill(lease.host)
        lease.upload()
        decode_slots, positions, kv_rows, ids, chunk_ids, fresh, sample_rows, slots, prompts, targets = (
            unpack(lease.words, place) for place in rows
        )
        staged = StepBatch(
            host=batch,
            lease=lease,
            bucket=bucket,
            decode_slots=decode_slots,
            decode_ids=None if decode_ids is None else ids,
            chunk_ids=chunk_ids,
            positions=positions,
            kv_rows=kv_rows,
            # A graph has its own, made of the positions.
            attention=self._attention(batch, lease.words, blocks, contexts, chunks)
            if bucket is None
            else AttentionPlan((), ()),
            fresh=fresh,
            sample_rows=sample_rows,
            sample_slots=slots,
            layout=layout,
            sampling=sampling.unpack(lease.words),
            prompts=PromptTensors(batch.prompts, prompts, targets) if batch.prompts else None,
        )
        lease.seal()
        return staged

    def _attention(
        self,
        batch: HostBatch,
        words: Tensor,
        blocks: Sequence[Place],
        contexts: Sequence[Place],
        chunk_blocks: Sequence[Place],
    ) -> AttentionPlan:
        decodes = tuple(
            DecodeGroup(
                group.first,
                len(group.contexts),
                unpack(words, place).view(-1),
                self._masks.rows(unpack(words, context) - 1, group.blocks.shape[1] * BLOCK_SIZE)[
                    :, None, None
                ],
            )
            for group, place, context in zip(batch.decodes, blocks, contexts, strict=True)
        )
        chunks = tuple(
            ChunkView(
                chunk.first,
                chunk.count,
                unpack(words, place),
                self._masks.rows(
                    torch.arange(chunk.start, chunk.start + chunk.count, device=self._device),
                    len(chunk.blocks) * BLOCK_SIZE,
                )[None, None],
            )
            for chunk, place in zip(batch.chunks, chunk_blocks, strict=True)
        )
        return AttentionPlan(decodes, chunks)
