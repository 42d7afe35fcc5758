"""Sampling of one step by a group of ranks: each samples its own rows, or rank 0 all of them.

Runners call it in the compute stage, and on every rank for the same steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from worker_svc.buffers.scratch import ScratchBuffer
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.sampling.inputs import SamplingInput
from worker_svc.sampling.layout import SampleLayout
from worker_svc.sampling.penalties import PenaltyState
from worker_svc.sampling.sampler import sample

if TYPE_CHECKING:
    from worker_svc.sampling.draw_graphs import DrawGraphs  # needed on CUDA only


class StepSampler:
    """One rank's sampler and its penalty state. Compute stage only; every rank calls it for every step."""

    def __init__(
        self, group: TPGroup, vocab_size: int, state: PenaltyState, graphs: DrawGraphs | None = None
    ) -> None:
        """``graphs``: None where no step is drawn by one."""
        self._group = group
        self._vocab_size = vocab_size
        self._state = state
        self._graphs = graphs
        self._scratch = ScratchBuffer()

    def begin(self, params: SamplingInput[Tensor]) -> None:
        """Requests that take a slot in this step, whether or not any row samples."""
        if params.starts is not None:
            self._state.begin(params.starts)

    def __call__(
        self,
        logits: Tensor,
        params: SamplingInput[Tensor],
        layout: SampleLayout,
        graph_words: Tensor | None = None,
    ) -> Tensor:
        """Words of all rows that sample, ``[s, words]`` int64, on every rank; the first of each is its id.

        ``logits``: this rank's columns ``[s, padded vocabulary / ranks]``, in the model's type or in fp32,
        which may be overwritten. Columns of all rows become all columns of some rows, or of all on rank 0;
        what these bring goes to everyone. ``graph_words``: those of ``params.graph``, where there is one.
        """
        own = layout.counts[self._group.rank]
        memory = None if self._graphs is None else self._graphs.logits[:own]
        whole = self._group.exchange_columns(logits, layout.counts, torch.float32, memory)
        if self._graphs is None or params.graph is None or graph_words is None:
            words = sample(whole[:, : self._vocab_size], params, self._state, self._scratch)
        else:  # which each rank decides for itself
            words = self._graphs.run(params.graph, graph_words)[:own].unsqueeze(1)
        words = self._group.gather_rows(words, layout.counts)
        if params.penalties is not None:
            self._state.update(words[:, 0], params.penalties)
        return words
