"""A model on one rank, step by step: prepare (input stage), execute (compute stage), to_host (output)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from albireo.plan import BLOCK_SIZE, GroupShape, Plan
from albireo.v1 import inference_pb2 as api
from worker_svc.model.checkpoint import Checkpoint
from worker_svc.model.config import ModelConfig
from worker_svc.model.kv_cache import allocate, blocks_in
from worker_svc.model.loader import Loader
from worker_svc.model.parallel import TPGroup
from worker_svc.sampler import SampledLogprobs, sample
from worker_svc.slot_table import Ints, SampleRows, SlotTable
from worker_svc.staging import Staging, StepBatch


@dataclass(frozen=True, slots=True)
class HostOutput:
    """What a step sampled: parallel lists, one entry a row."""

    slots: list[int]
    incarnations: list[int]
    ids: list[int]  # sampler.FAILED for a row that could not be sampled
    logprobs: dict[int, api.TokenLogprobs]  # by entry


class StepOutput:
    """Sampled ids on their way to the host. Holds what the copy reads until it is done."""

    def __init__(self, samples: SampleRows, ids: Tensor, logprobs: SampledLogprobs | None) -> None:
        self._samples = samples
        self._ids = ids
        self._logprobs = logprobs
        self._done: torch.cuda.Event | None = None
        self._on_host = ids
        if ids.is_cuda:
            self._on_host = torch.empty(ids.shape, dtype=ids.dtype, pin_memory=True)
            self._on_host.copy_(ids, non_blocking=True)
            self._done = torch.cuda.Event()
            self._done.record()

    def to_host(self) -> HostOutput:
        """Waits for the step, where it runs on its own. Called once, by the output stage."""
        if self._done is not None:
            self._done.synchronize()
        return HostOutput(
            slots=self._samples.slots.tolist(),
            incarnations=self._samples.incarnations.tolist(),
            ids=self._on_host.tolist(),
            logprobs={} if self._logprobs is None else _logprobs(self._samples.logprobs, self._logprobs),
        )


class ModelRunner:
    """One rank's model, KV cache and slot table.

    ``prepare`` and ``reset`` belong to the input stage, ``execute`` to the compute stage; they may run at
    the same time. All ranks prepare and execute the same plans in the same order.
    """

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
    ) -> None:
        """``kv_memory``: bytes for KV blocks on this rank. Raises CheckpointError."""
        self.config = ModelConfig.from_dir(directory)
        self.config.check_tp(group.size)
        self.device = device
        num_blocks = blocks_in(kv_memory, self.config, group.size, dtype)
        self.shape = GroupShape(
            num_blocks=num_blocks,
            max_seqs=max_seqs,
            max_model_len=min(max_model_len, self.config.max_positions, num_blocks * BLOCK_SIZE),
        )
        self._group = group
        checkpoint = Checkpoint(directory, dtype)
        self._model = Loader(self.config, checkpoint, group, device, dtype, self.shape.max_model_len).load()
        # The block beyond the last pads block tables: always there, never written.
        self._caches = allocate(num_blocks + 1, self.config, group.size, dtype, device)
        self._last_token = torch.zeros(max_seqs, dtype=torch.int64, device=device)
        self._table = SlotTable(self.shape, self.config.eos_ids)
        self._staging = Staging(device, dtype)

    def reset(self) -> None:
        """Forgets all requests. Steps that were prepared before may still be executed."""
        self._table.reset()

    @torch.inference_mode()
    def prepare(self, plan: Plan) -> StepBatch:
        """Applies a plan and stages its step. Raises TableMismatch."""
        return self._staging.stage(self._table.apply(plan))

    @torch.inference_mode()
    def execute(self, batch: StepBatch) -> StepOutput:
        """Launches a step: forward, sampling, and the sampled ids into ``last_token``."""
        samples = batch.host.samples
        if not len(batch.host.positions):
            return StepOutput(samples, batch.sample_slots, None)
        self._await_copies(batch)
        logits = self._model(
            self._input_ids(batch),
            batch.positions,
            batch.kv_rows,
            batch.sample_rows,
            batch.attention,
            self._caches,
        )
        if not len(samples.slots):
            return StepOutput(samples, batch.sample_slots, None)
        ids, logprobs = self._sample(logits, batch)
        self._last_token.index_copy_(0, batch.sample_slots, ids.clamp(min=0))
        return StepOutput(samples, ids, logprobs)

    def _await_copies(self, batch: StepBatch) -> None:
        if batch.ready is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(batch.ready)
            for tensor in batch.copied:
                tensor.record_stream(stream)  # the copy stream must not reuse it before we are done

    def _input_ids(self, batch: StepBatch) -> Tensor:
        """Decoding rows take the token that the last step left on the device."""
        return torch.cat([self._last_token.index_select(0, batch.decode_slots), batch.chunk_ids])

    def _sample(self, logits: Tensor, batch: StepBatch) -> tuple[Tensor, SampledLogprobs | None]:
        """Rank 0 samples the gathered logits for all; the padding of the vocabulary is cut off."""
        whole = self._group.gather_columns(logits)
        if whole is None:
            return self._group.broadcast(torch.empty_like(batch.sample_slots)), None
        ids, logprobs = sample(whole[:, : self.config.vocab_size], batch.sampling)
        return self._group.broadcast(ids), logprobs


def _logprobs(wanted: Ints, found: SampledLogprobs) -> dict[int, api.TokenLogprobs]:
    entries = np.flatnonzero(wanted >= 0).tolist()
    chosen, top_ids, top = found.chosen.tolist(), found.top_ids.tolist(), found.top.tolist()
    return {
        entry: api.TokenLogprobs(
            logprob=chosen[i], top_ids=top_ids[i][: wanted[entry]], top_logprobs=top[i][: wanted[entry]]
        )
        for i, entry in enumerate(entries)
    }
