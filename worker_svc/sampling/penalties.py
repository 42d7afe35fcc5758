"""The penalty state: how often each request has had which token, on the device of the rank that samples it.

The sampler reads and updates it, in the compute stage.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from worker_svc.sampling.inputs import Penalties, PenaltyStarts


class Change(NamedTuple):
    """Numbers that were overwritten; those of the same position are equal."""

    at: tuple[Tensor, Tensor]
    before: Tensor


class PenaltyState:
    """Per slot: the ids that its request has, as a list, each with how often it is among the outputs.

    An id may be listed more than once, always with the same count. So a step's penalties touch the listed
    ids alone, and the state takes memory for contexts, not for vocabularies. Nothing is allocated before
    the first request with a penalty comes. Compute stage only: all of this happens in the order of steps.
    """

    def __init__(self, state_rows: int, columns: int, device: torch.device) -> None:
        """``state_rows``: slots whose state is kept here; ``columns``: most tokens of a request."""
        self._shape = (state_rows, columns)
        self._device = device
        self._ids = torch.empty(0, dtype=torch.int64, device=device)  # [state rows, columns]
        self._counts = torch.empty(0, dtype=torch.int32, device=device)  # [state rows, columns]

    def begin(self, starts: PenaltyStarts[Tensor]) -> None:
        """Requests take slots: their lists begin anew."""
        if not len(self._ids):
            self._ids = torch.zeros(self._shape, dtype=torch.int64, device=self._device)
            self._counts = torch.zeros(self._shape, dtype=torch.int32, device=self._device)
        at = (starts.state_rows, starts.columns)
        self._ids.index_put_(at, starts.ids)
        self._counts.index_put_(at, starts.counts.to(torch.int32))

    def apply(self, logits: Tensor, penalties: Penalties[Tensor]) -> Change:
        """Changes ``logits`` ``[rows, vocabulary]`` of the rows with penalties."""
        ids, counts = self._lists(penalties.state_rows, penalties.columns, penalties.most)
        at = (penalties.entries.unsqueeze(1), ids)
        before = found = logits[at]
        repetition = penalties.repetition.unsqueeze(1)
        found = torch.where(found < 0, found * repetition, found / repetition)
        found -= penalties.frequency.unsqueeze(1) * counts
        found -= penalties.presence.unsqueeze(1) * (counts > 0)
        logits.index_put_(at, found)  # an id that is listed twice gets the same number twice
        return Change(at, before)

    def update(self, ids: Tensor, penalties: Penalties[Tensor]) -> None:
        """Counts what a step sampled: ``ids`` of all its rows. What a failed row adds is never read."""
        state_rows, columns = penalties.kept_state_rows, penalties.kept_columns
        tokens = ids.index_select(0, penalties.kept_entries).clamp_(min=0)
        listed, counts = self._lists(state_rows, columns, penalties.most)
        same = listed == tokens.unsqueeze(1)
        times = (counts * same).amax(-1) + 1
        counted = torch.where(same, times.unsqueeze(1), counts)
        self._counts[:, : penalties.most].index_copy_(0, state_rows, counted)
        self._ids.index_put_((state_rows, columns), tokens)
        self._counts.index_put_((state_rows, columns), times)

    def _lists(self, state_rows: Tensor, columns: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """Ids and counts ``[n, most]``; beyond a list's own ``columns`` its first id, again and again."""
        beyond = torch.arange(most, device=state_rows.device) >= columns.unsqueeze(1)
        ids = self._ids[:, :most].index_select(0, state_rows)
        counts = self._counts[:, :most].index_select(0, state_rows)
        return torch.where(beyond, ids[:, :1], ids), torch.where(beyond, counts[:, :1], counts)
