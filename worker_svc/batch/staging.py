"""Staging: copies a step's input to the device, all but the ids of decoding rows. The input stage calls it.

On CUDA the copies run on a stream of their own, out of pinned memory; the compute stage waits for them
with an event, on the device. On the CPU the same buffers are filled, and nothing needs copying.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worker_svc.batch.inputs import StepInput, attention_plan, end_rows, ends_of
from worker_svc.batch.slot_table import HostBatch
from worker_svc.buffers.arrays import Ints
from worker_svc.buffers.staging_ring import StagingBuffer, StagingRing
from worker_svc.buffers.structs import Packing
from worker_svc.kv_tiers.step_transfers import StepTransfers
from worker_svc.model.attention import AttentionPlan
from worker_svc.model.causal_mask import CausalMasks
from worker_svc.model.transformer import Ends
from worker_svc.sampling.input_builder import SamplingInputBuilder
from worker_svc.sampling.layout import SampleLayout, SamplingPolicy
from worker_svc.sampling.native_draw import has_native_draws
from worker_svc.sampling.prompt_logprobs import prompt_input


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One step on the device. ``host`` names its rows.

    All tensors here are views of ``buffer.words``: they hold the step until it is executed, and another one
    later. With ``forward_words`` the step is padded to a bucket and runs as a graph, and ``attention`` is
    empty.
    """

    host: HostBatch
    buffer: StagingBuffer
    input: StepInput[Tensor]
    forward_words: Tensor | None  # those of ``input.forward``
    draw_words: Tensor | None  # those of ``input.sampling.graph``, where that is
    attention: AttentionPlan
    ends: Ends | None  # None: the hidden states of all rows are wanted
    layout: SampleLayout
    transfers: StepTransfers | None = None  # with KV tiers

    def await_copies(self) -> None:
        """Compute stage: its current stream waits, on the device, for what the copy stream does."""
        self.buffer.wait()
        for group in self.attention.decodes + self.attention.chunks:
            if group.mask is not None and group.mask.is_cuda:
                # The copy stream's allocator owns it, and must not hand it out before we are done.
                group.mask.record_stream(torch.cuda.current_stream(group.mask.device))


class Staging:
    """Copies batches to one device; used by the input stage alone."""

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        max_model_len: int,
        policy: SamplingPolicy | None = None,
        *,
        masked: bool = True,
        graph_rows: tuple[int, ...] = (),
    ) -> None:
        """``dtype``: of the attention masks, that is of the model. ``policy``: None for a group of one.
        ``masked``: attention wants masks. ``graph_rows``: buckets of the CUDA graphs that draw."""
        self._device = device
        self._policy = policy or SamplingPolicy()
        on_cpu = device.type == "cpu"
        self._sampling = SamplingInputBuilder(
            self._policy, narrow=on_cpu, native=on_cpu and has_native_draws(), graph_rows=graph_rows
        )
        self._masks = CausalMasks(max_model_len, dtype, device) if masked else None
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(device))  # which fills the masks' vector
        self._ring = StagingRing(device, self._stream)

    @property
    def waited(self) -> float:
        """Seconds spent so far on waiting for a buffer."""
        return self._ring.waited

    def to_device(
        self, batch: HostBatch, decode_ids: Ints | None = None, *, padded: bool = False
    ) -> StepBatch:
        """``decode_ids``: tokens of the decoding rows, in synchronous mode.

        ``padded``: to a bucket, so that the step will run as a graph. Raises RuntimeError where more steps
        are staged than the ring holds.
        """
        if self._stream is None:
            return self._to_device(batch, decode_ids, padded)
        with torch.cuda.stream(self._stream):
            return self._to_device(batch, decode_ids, padded)

    def _to_device(self, batch: HostBatch, decode_ids: Ints | None, padded: bool) -> StepBatch:
        samples = batch.samples
        layout = self._policy.layout(samples.slots)
        ends, rows = None, samples.rows
        if batch.forward.chunks and not batch.spans and not batch.prompts:
            ends = end_rows(batch.forward)
            rows = np.searchsorted(ends, rows)
        sampling = self._sampling.build(samples, batch.penalty_starts, layout)
        packing = Packing(
            StepInput(
                forward=batch.forward,
                decode_ids=decode_ids,
                fresh=batch.fresh,
                ends=ends,
                sample_rows=rows,
                sample_slots=samples.slots,
                sampling=sampling,
                prompts=prompt_input(batch.prompts),
            )
        )
        buffer = self._ring.take(packing.size)
        packing.fill(buffer.host)
        buffer.upload()
        step = packing.views(StepInput[Tensor], buffer.words)
        # A graph makes its own plan for attention, of its own copy of the forward's input.
        attention = AttentionPlan((), ())
        if not padded:
            attention = attention_plan(step.forward, self._masks)
        kept = None if step.ends is None else ends_of(attention, step.forward, step.ends)
        forward_words = buffer.words[packing.span(batch.forward)] if padded else None
        draw_words = None if sampling.graph is None else buffer.words[packing.span(sampling.graph)]
        staged = StepBatch(batch, buffer, step, forward_words, draw_words, attention, kept, layout)
        buffer.seal()
        return staged
