"""CUDA graphs of a rank: one launch instead of hundreds.

:class:`worker_svc.runner.model_runner.ModelRunner` captures them when it starts and runs them, in the
compute stage.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from albireo.contract.plan import GroupShape
from worker_svc.batch.buckets import DecodeBuckets
from worker_svc.batch.inputs import ForwardInput, attention_plan
from worker_svc.batch.slot_table import HostBatch
from worker_svc.buffers.graph_memory import GraphMemory
from worker_svc.buffers.structs import Packing
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.model.kv_cache import KVCache
from worker_svc.model.transformer import Transformer
from worker_svc.sampling.draw_graphs import DrawGraphs
from worker_svc.sampling.layout import SamplingPolicy


class StepGraphs:
    """The graphs of one rank: of forwards, and of draws."""

    def __init__(
        self,
        model: Transformer,
        cache: KVCache,
        last_token: Tensor,
        shape: GroupShape,
        group: TPGroup,
        policy: SamplingPolicy,
    ) -> None:
        """As :class:`DecodeGraphs`. ``policy``: which rows the rank samples."""
        memory = GraphMemory(last_token.device, shows_progress=group.rank == 0)
        self._buckets = DecodeBuckets(shape)
        self.decodes = DecodeGraphs(memory, model, cache, last_token, self._buckets)
        self.draws: DrawGraphs | None = None  # where it samples
        if most := policy.most_rows(shape.max_seqs):
            columns = model.head.outputs * group.size
            self.draws = DrawGraphs(memory, model.config.vocab_size, columns, most)

    def __len__(self) -> int:
        return len(self.decodes) + (0 if self.draws is None else len(self.draws))

    def pad(self, batch: HostBatch) -> HostBatch | None:
        """The same step, padded to a bucket; None where its forward runs without a graph."""
        rows = self._buckets.choose(batch)
        return None if rows is None else self._buckets.pad(batch, rows)


class DecodeGraphs:
    """All layers of padded decode steps, a graph for each bucket. Compute stage only.

    They bring hidden states. The logits are no part of them, since each graph would keep memory for its own.
    """

    def __init__(
        self,
        memory: GraphMemory,
        model: Transformer,
        cache: KVCache,
        last_token: Tensor,
        buckets: DecodeBuckets,
    ) -> None:
        """Captures all of them; all ranks do so together. ``last_token``: of all slots, and one for padding
        rows. Raises CheckpointError where the device has not enough memory for them."""
        self._model = model
        self._cache = cache
        self._last_token = last_token
        self._buckets = buckets
        most = buckets.sizes[-1]
        what, size = f"decode steps of 1 to {most} rows", buckets.packing(most).size
        self._graphs = memory.capture_each(what, buckets.sizes[::-1], size, self._prepare)

    def __len__(self) -> int:
        return len(self._graphs)

    def run(self, rows: int, words: Tensor) -> Tensor:
        """Hidden states ``[rows, hidden]`` of a step padded to the bucket of ``rows``, good until any
        graph runs next. ``words``: int64, the ForwardInput of the step."""
        return self._graphs.run(rows, words)

    def _prepare(self, rows: int, words: Tensor) -> Callable[[], Tensor]:
        """A step of padding rows."""
        Packing(self._buckets.padding(rows)).write(words)
        forward = self._buckets.packing(rows).views(ForwardInput[Tensor], words)
        return lambda: self._model.hidden(
            self._last_token.index_select(0, forward.decode_slots),
            forward.positions,
            forward.kv_rows,
            attention_plan(forward, None),
            self._cache.layers,
        )
