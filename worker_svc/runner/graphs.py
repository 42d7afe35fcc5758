"""CUDA graphs of decode steps: one launch instead of hundreds.

:class:`worker_svc.runner.model_runner.ModelRunner` runs them, in the compute stage.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worker_svc.batch.buckets import Bucket
from worker_svc.batch.inputs import ForwardInput, attention_plan
from worker_svc.model.causal_mask import CausalMasks
from worker_svc.model.kv_cache import KVCache
from worker_svc.model.transformer import Transformer


class DecodeGraphs:
    """The forward of padded decode steps, captured when a bucket is first met. Compute stage only.

    A graph reads and writes fixed addresses. Those that outlive a step are held here or by the runner: the
    input words, ``last_token``, weights, caches. Everything between (gathered keys, the mask, activations,
    logits) was allocated during the capture, in a memory pool that belongs to the graphs. They share one
    pool: replays follow one another on one stream, and each step's logits are consumed on it before the next.
    """

    def __init__(
        self,
        model: Transformer,
        cache: KVCache,
        last_token: Tensor,
        *,
        max_words: int,
        max_model_len: int,
        dtype: torch.dtype,
    ) -> None:
        """``last_token``: ``[slots + 1]``, the last one for padding rows. ``dtype``: the model's."""
        device = last_token.device
        self._model = model
        self._cache = cache
        self._last_token = last_token
        self._masks = CausalMasks(max_model_len, dtype, device)
        self._words = torch.zeros(max_words, dtype=torch.int64, device=device)
        self._all_rows = torch.arange(len(last_token), device=device)
        self._stream = torch.cuda.Stream(device)  # captures; replays run on the compute stage's
        self._pool = torch.cuda.graph_pool_handle()
        self._captured: dict[Bucket, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def run(self, bucket: Bucket, words: Tensor, rows: int) -> Tensor:
        """Logits ``[rows, padded vocabulary / ranks]`` of the step's own rows, good until the next call.

        ``words``: int64, the first ``bucket.words`` of them the ForwardInput of a step padded to ``bucket``.
        On every rank the first call of a bucket comes with the same step.
        """
        self._words[: bucket.words].copy_(words[: bucket.words])
        if bucket not in self._captured:
            self._captured[bucket] = self._capture(bucket)
        graph, logits = self._captured[bucket]
        graph.replay()
        return logits[:rows]

    def _capture(self, bucket: Bucket) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Runs the step once, which loads kernels and connects NCCL, then records it.

        That the step runs again on replay does no harm: it writes the same keys and values to the same place.
        """
        current = torch.cuda.current_stream(self._words.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self._forward(bucket)
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # Thread-local: the other stages and NCCL's watchdog go on talking to the device meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            logits = self._forward(bucket)
        return graph, logits

    def _forward(self, bucket: Bucket) -> Tensor:
        forward = bucket.packing.views(ForwardInput[Tensor], self._words)
        return self._model(
            self._last_token.index_select(0, forward.decode_slots),
            forward.positions,
            forward.kv_rows,
            self._all_rows[: bucket.rows],
            attention_plan(forward, self._masks),
            self._cache.layers,
        )
