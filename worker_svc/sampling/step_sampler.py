"""Sampling of one step by a group of ranks: each samples its own rows, or rank 0 all of them.

Runners call it in the compute stage, and on every rank for the same steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worker_svc.buffers.scratch import ScratchBuffer
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.sampling.inputs import SamplingInput
from worker_svc.sampling.layout import SampleLayout
from worker_svc.sampling.penalties import PenaltyState
from worker_svc.sampling.sampler import sample


class StepSampler:
    """One rank's sampler and its penalty state. Compute stage only; every rank calls it for every step."""

    def __init__(self, group: TPGroup, vocab_size: int, state: PenaltyState) -> None:
        self._group = group
        self._vocab_size = vocab_size
        self._state = state
        self._scratch = ScratchBuffer()

    def begin(self, params: SamplingInput[Tensor]) -> None:
        """Requests that take a slot in this step, whether or not any row samples."""
        if params.starts is not None:
            self._state.begin(params.starts)

    def __call__(self, logits: Tensor, params: SamplingInput[Tensor], layout: SampleLayout) -> Tensor:
        """Words of all rows that sample, ``[s, words]`` int64, on every rank; the first of each is its id.

        ``logits``: this rank's columns ``[s, padded vocabulary / ranks]`` in the model's type; in fp32 they
        may be overwritten. Columns of all rows become all columns of some rows, or of all on rank 0; what
        these bring goes to everyone.
        """
        whole = self._group.exchange_columns(logits, layout.counts, torch.float32)
        words = sample(whole[:, : self._vocab_size], params, self._state, self._scratch)
        words = self._group.gather_rows(words, layout.counts)
        if params.penalties is not None:
            self._state.update(words[:, 0], params.penalties)
        return words
