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

from albireo.plan import BLOCK_SIZE
from worker_svc.buckets import Bucket
from worker_svc.model.attention import AttentionPlan, ChunkView, DecodeGroup
from worker_svc.model.causal_mask import CausalMasks
from worker_svc.random_numbers import uniforms
from worker_svc.ring import Lease, StagingRing
from worker_svc.sampler import SamplingTensors
from worker_svc.slot_table import HostBatch, Ints, SampleRows


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
    sampling: SamplingTensors

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

    def __init__(self, device: torch.device, dtype: torch.dtype, max_model_len: int) -> None:
        """``dtype``: of the attention masks, that is of the model."""
        self._device = device
        self._masks = CausalMasks(max_model_len, dtype, device)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(device))  # which fills the masks' vector
        self._ring = StagingRing(device, self._stream)

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
        samples = batch.samples
        drawn = np.flatnonzero(samples.temperature != 0)
        arrays = [
            # A graph's input, in one piece.
            batch.decode_slots,
            batch.positions,
            batch.kv_rows,
            *(group.blocks.ravel() for group in batch.decodes),
            *(group.contexts for group in batch.decodes),
            *(chunk.blocks for chunk in batch.chunks),
            decode_ids if decode_ids is not None else batch.decode_slots[:0],
            batch.chunk_ids,
            batch.fresh,
            samples.rows,
            samples.slots,
            np.flatnonzero(samples.temperature == 0),
            drawn,
            samples.top_k[drawn],
            samples.masked_rows,
            samples.masked_ids,
            np.flatnonzero(samples.logprobs >= 0),
        ]
        sizes = [len(array) for array in arrays]
        ints, doubles = sum(sizes), sum(sizes) + len(drawn)
        lease = self._ring.take(doubles + -(-3 * len(drawn) // 2))
        np.concatenate(arrays, out=lease.host[:ints])
        draws = lease.host[ints:doubles].view(np.float64)
        draws[:] = uniforms(samples.seeds[drawn], samples.positions[drawn])
        controls = lease.host[doubles:].view(np.float32)[: 3 * len(drawn)].reshape(3, len(drawn))
        controls[0], controls[1] = samples.temperature[drawn], samples.top_p[drawn]
        controls[2] = samples.min_p[drawn]
        lease.upload()
        decode_slots, positions, kv_rows, *rest = lease.words[:ints].split(sizes)
        views, (ids, chunk_ids, fresh, rows, slots, *sampling) = rest[:-11], rest[-11:]
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
            attention=self._attention(batch, views) if bucket is None else AttentionPlan((), ()),
            fresh=fresh,
            sample_rows=rows,
            sample_slots=slots,
            sampling=_sampling(
                samples,
                drawn,
                sampling,
                lease.words[ints:doubles].view(torch.float64),
                lease.words[doubles:].view(torch.float32)[: 3 * len(drawn)].view(3, len(drawn)),
            ),
        )
        lease.seal()
        return staged

    def _attention(self, batch: HostBatch, pieces: Sequence[Tensor]) -> AttentionPlan:
        count = len(batch.decodes)
        decodes = tuple(
            DecodeGroup(
                group.first,
                len(group.contexts),
                blocks,
                self._masks.rows(contexts - 1, group.blocks.shape[1] * BLOCK_SIZE)[:, None, None],
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
                self._masks.rows(
                    torch.arange(chunk.start, chunk.start + chunk.count, device=self._device),
                    len(chunk.blocks) * BLOCK_SIZE,
                )[None, None],
            )
            for chunk, blocks in zip(batch.chunks, pieces[2 * count :], strict=True)
        )
        return AttentionPlan(decodes, chunks)


def _sampling(
    samples: SampleRows, drawn: Ints, ints: Sequence[Tensor], draws: Tensor, controls: Tensor
) -> SamplingTensors:
    greedy, drawn_rows, top_k, masked_rows, masked_ids, wanted = ints
    return SamplingTensors(
        greedy=greedy,
        drawn=drawn_rows,
        temperature=controls[0],
        top_k=top_k,
        top_p=controls[1],
        min_p=controls[2],
        uniforms=draws,
        max_top_k=int(samples.top_k[drawn].max(initial=0)),
        any_top_p=bool((samples.top_p[drawn] < 1).any()),
        any_min_p=bool((samples.min_p[drawn] > 0).any()),
        masked_rows=masked_rows,
        masked_ids=masked_ids,
        logprob_rows=wanted,
        max_logprobs=int(samples.logprobs.max(initial=0)),
    )
