"""A model on one rank, step by step: prepare (input stage), execute (compute stage), to_host (output)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from albireo.plan import BLOCK_SIZE, GroupShape, Plan
from worker_svc.buckets import DecodeBuckets
from worker_svc.marks import CudaClock, HostMarks, Marks
from worker_svc.model.checkpoint import Checkpoint
from worker_svc.model.config import ModelConfig
from worker_svc.model.kv_cache import allocate, block_bytes, blocks_in
from worker_svc.model.loader import Loader
from worker_svc.model.parallel import TPGroup
from worker_svc.sampling.layout import SamplingMode, SamplingPolicy
from worker_svc.sampling.logprobs import to_messages
from worker_svc.sampling.penalties import PenaltyState
from worker_svc.sampling.prompt import prompt_messages, prompt_words
from worker_svc.sampling.step_sampler import StepSampler
from worker_svc.slot_table import HostBatch, SlotTable
from worker_svc.staging import Staging, StepBatch
from worker_svc.step import HostOutput

if TYPE_CHECKING:
    from worker_svc.graphs import DecodeGraphs


class DeviceOutput:
    """What a step sampled, on its way to the host. Holds what the copies read until they are done."""

    def __init__(self, host: HostBatch, words: Tensor, prompt_words: Tensor | None, marks: Marks) -> None:
        """``words``: see :class:`StepSampler`; ``prompt_words``: see :func:`prompt_words`."""
        self._host = host
        self._marks = marks
        self._found = [words] if prompt_words is None else [words, prompt_words]
        self._on_host = self._found
        self._done: torch.cuda.Event | None = None
        if words.is_cuda:
            # All in the step's own order, so that fetching them does not wait for the steps behind it.
            self._on_host = [_start_copy(tensor) for tensor in self._found]
            self._done = torch.cuda.Event()
            self._done.record(torch.cuda.current_stream(words.device))

    def to_host(self) -> HostOutput:
        """Waits for the step, where it runs on its own. Called once."""
        if self._done is not None:
            self._done.synchronize()
        samples = self._host.samples
        words, *prompts = (tensor.numpy() for tensor in self._on_host)
        entries = np.flatnonzero(samples.logprobs >= 0) if words.shape[1] > 1 else np.zeros(0, dtype=np.int64)
        messages = to_messages(words[entries, 1:], samples.logprobs[entries].tolist()) if len(entries) else []
        return HostOutput(
            slots=samples.slots,
            incarnations=samples.incarnations,
            ids=words[:, 0],
            logprobs=dict(zip(entries.tolist(), messages, strict=True)),
            prompt_logprobs=prompt_messages(self._host.prompts, prompts[0]) if prompts else {},
        )

    def moments(self) -> list[int]:
        return self._marks.nanoseconds()


class ModelRunner:
    """One rank's model, KV cache and slot table; see :class:`worker_svc.step.Runner`."""

    def __init__(
        self,
        directory: Path,
        group: TPGroup,
        *,
        device: torch.device,
        dtype: torch.dtype,
        kv_memory: int,
        max_seqs: int,
        max_model_len: int,
        synchronous: bool = False,
        cuda_graphs: bool = True,
        sampling: SamplingMode = "auto",
    ) -> None:
        """``kv_memory``: bytes for KV blocks on this rank. Raises CheckpointError.

        ``synchronous``: the ids of decoding rows come from the host, by ``feed_back``.
        ``cuda_graphs``: on CUDA, decode steps run as graphs; what these allocate comes on top of
        ``kv_memory``. ``sampling``: how ranks share it; synchronous, rank 0 does all of it.
        """
        self.config = ModelConfig.from_dir(directory)
        self.config.check_tp(group.size)
        self.device = device
        num_blocks = blocks_in(kv_memory, self.config, group.size, dtype)
        self.shape = GroupShape(
            num_blocks=num_blocks,
            max_seqs=max_seqs,
            max_model_len=min(max_model_len, self.config.max_positions, num_blocks * BLOCK_SIZE),
        )
        self.kv_bytes = num_blocks * block_bytes(self.config, group.size, dtype)
        self._group = group
        checkpoint = Checkpoint(directory, dtype)
        self._model = Loader(self.config, checkpoint, group, device, dtype, self.shape.max_model_len).load()
        # Two blocks beyond the last: one pads block tables and is never written, one takes what the padding
        # rows of a graph write and is never read. The slot beyond the last is where those find a token.
        self._cache = allocate(num_blocks + 2, self.config, group.size, dtype, device)
        self._last_token = torch.zeros(max_seqs + 1, dtype=torch.int64, device=device)
        self._host_last_token = np.zeros(max_seqs + 1, dtype=np.int64) if synchronous else None
        self._no_words = torch.zeros(0, 1, dtype=torch.int64, device=device)
        self._table = SlotTable(self.shape, self.config.vocab_size, self.config.eos_ids, group.size)
        policy = SamplingPolicy("driver" if synchronous else sampling, group.rank, group.size)
        self._staging = Staging(device, dtype, self.shape.max_model_len, policy)
        # One column more: the rows of a request that has reached its length may run once again.
        state = PenaltyState(policy.state_rows(max_seqs), self.shape.max_model_len + 1, device)
        self._sampler = StepSampler(group, self.config.vocab_size, state)
        self._clock = CudaClock(device) if device.type == "cuda" else None
        self._buckets: DecodeBuckets | None = None
        self._graphs: DecodeGraphs | None = None
        if device.type == "cuda" and cuda_graphs:
            from worker_svc.graphs import DecodeGraphs  # no business of a machine without CUDA

            self._buckets = DecodeBuckets(self.shape)
            self._graphs = DecodeGraphs(
                self._model,
                self._cache,
                self._last_token,
                max_words=self._buckets.max_words,
                max_model_len=self.shape.max_model_len,
                dtype=dtype,
            )

    @property
    def staging_wait(self) -> float:
        return self._staging.waited

    def reset(self) -> None:
        self._table.reset()

    @torch.inference_mode()
    def prepare(self, plan: Plan) -> StepBatch:
        batch, bucket = self._table.apply(plan), None
        if self._buckets is not None and (bucket := self._buckets.choose(batch)) is not None:
            batch = self._buckets.pad(batch, bucket)
        if self._host_last_token is None:
            return self._staging.stage(batch, bucket=bucket)
        return self._staging.stage(batch, self._host_last_token[batch.decode_slots], bucket)

    def feed_back(self, output: HostOutput) -> None:
        if self._host_last_token is None:
            raise RuntimeError("ids come from the device: this runner is not synchronous")
        self._host_last_token[output.slots] = np.maximum(output.ids, 0)

    @torch.inference_mode()
    def execute(self, batch: StepBatch) -> DeviceOutput:
        marks = HostMarks() if self._clock is None else self._clock.marks()
        words, prompts = self._no_words, None
        batch.await_copies()
        marks.mark()
        if len(batch.fresh):
            self._cache.clear(batch.fresh)
        logits = None
        if len(batch.host.positions):
            logits, prompts = self._forward(batch)
        marks.mark()
        self._sampler.begin(batch.sampling)
        if logits is not None and len(batch.sample_slots):
            words = self._sampler(logits, batch.sampling, batch.layout)
            self._last_token.index_copy_(0, batch.sample_slots, words[:, 0].clamp(min=0))
        marks.mark()
        batch.lease.release()
        return DeviceOutput(batch.host, words, prompts, marks)

    def _forward(self, batch: StepBatch) -> tuple[Tensor, Tensor | None]:
        """Logits of the rows that sample, and what the step tells of prompts.

        Decoding rows take the token that the last step left on the device; synchronous ones brought it.
        """
        if batch.decode_ids is not None:
            self._last_token.index_copy_(0, batch.decode_slots, batch.decode_ids)
        if self._graphs is not None and batch.bucket is not None:
            words = batch.lease.words[: batch.bucket.words]
            logits = self._graphs.run(batch.bucket, words, len(batch.sample_slots))
            # A graph's rows come in the order of the step; those of a group must come owner by owner.
            return logits if self._group.size == 1 else logits.index_select(0, batch.sample_rows), None
        hidden = self._model.hidden(
            torch.cat([self._last_token.index_select(0, batch.decode_slots), batch.chunk_ids]),
            batch.positions,
            batch.kv_rows,
            batch.attention,
            self._cache.layers,
        )
        prompts = None
        if batch.prompts is not None:
            prompts = prompt_words(
                lambda rows: self._model.logits(hidden, rows),
                batch.prompts,
                self.config.vocab_size,
                self._group,
            )
        return self._model.logits(hidden, batch.sample_rows), prompts


def _start_copy(tensor: Tensor) -> Tensor:
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
