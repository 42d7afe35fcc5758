"""CUDA graphs of decode steps: one launch instead of hundreds.

:class:`worker_svc.runner.model_runner.ModelRunner` captures them when it starts and runs them, in the
compute stage.
"""

from __future__ import annotations

import logging
import time

import torch
from torch import Tensor

from albireo.checkpoint.files import CheckpointError
from worker_svc.batch.buckets import DecodeBuckets
from worker_svc.batch.inputs import ForwardInput, attention_plan
from worker_svc.buffers.structs import Packing
from worker_svc.model.kv_cache import KVCache
from worker_svc.model.transformer import Transformer

logger = logging.getLogger(__name__)


class DecodeGraphs:
    """All layers of padded decode steps, a graph for each bucket. Compute stage only.

    A graph reads and writes fixed addresses. Those that outlive a step are held here or by the runner: the
    input words, ``last_token``, weights, caches. Everything between (queries, parts of attention, hidden
    states) was allocated during the capture, in a memory pool that belongs to the graphs. They share one
    pool: replays follow one another on one stream, and each step's hidden states are consumed on it before
    the next. The logits are no part of a graph, since each would keep memory for its own.
    """

    def __init__(
        self, model: Transformer, cache: KVCache, last_token: Tensor, buckets: DecodeBuckets
    ) -> None:
        """Captures all graphs; all ranks do so together. ``last_token``: ``[slots + 1]``, the last one for
        padding rows. Raises CheckpointError where the device has not enough memory for them."""
        began = time.perf_counter()
        self._device = last_token.device
        self._model = model
        self._cache = cache
        self._last_token = last_token
        self._buckets = buckets
        largest = buckets.packing(buckets.sizes[-1]).size
        self._words = torch.zeros(largest, dtype=torch.int64, device=self._device)
        self._stream = torch.cuda.Stream(self._device)  # captures; replays run on the compute stage's
        self._pool = torch.cuda.graph_pool_handle()
        try:
            # The largest first: what it has freed of the pool, the others need less of.
            self._captured = {rows: self._capture(rows) for rows in reversed(buckets.sizes)}
        except torch.OutOfMemoryError as error:
            raise CheckpointError(f"no memory for CUDA graphs, lower --kv-memory: {error}") from None
        logger.info(
            "captured %d CUDA graphs, of decode steps of 1 to %d rows, in %.1f s",
            len(self._captured),
            buckets.sizes[-1],
            time.perf_counter() - began,
        )

    def __len__(self) -> int:
        return len(self._captured)

    def run(self, rows: int, words: Tensor) -> Tensor:
        """Hidden states ``[rows, hidden]`` of a step padded to the bucket of ``rows``, good until the next
        call. ``words``: int64, the ForwardInput of the step."""
        self._words[: len(words)].copy_(words)
        graph, hidden = self._captured[rows]
        graph.replay()
        return hidden

    @torch.inference_mode()
    def _capture(self, rows: int) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Runs a step of padding rows once, which compiles and loads kernels and connects NCCL, then records
        it."""
        packing = self._buckets.packing(rows)
        self._write_padding(rows)
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self._forward(packing.views(ForwardInput[Tensor], self._words))
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # Thread-local: NCCL's watchdog goes on talking to the device meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            hidden = self._forward(packing.views(ForwardInput[Tensor], self._words))
        return graph, hidden

    def _write_padding(self, rows: int) -> None:
        packing = Packing(self._buckets.padding(rows))
        words = torch.empty(packing.size, dtype=torch.int64)
        packing.fill(words.numpy())
        self._words[: packing.size].copy_(words)

    def _forward(self, forward: ForwardInput[Tensor]) -> Tensor:
        return self._model.hidden(
            self._last_token.index_select(0, forward.decode_slots),
            forward.positions,
            forward.kv_rows,
            attention_plan(forward, None),
            self._cache.layers,
        )
