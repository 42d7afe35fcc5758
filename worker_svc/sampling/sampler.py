"""One rank's share of a step: from whole rows of logits to ids, and the log-probabilities asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from worker_svc.room import Room
from worker_svc.sampling.blocks import block_maxima, largest_ids
from worker_svc.sampling.draw import draw_narrow, draw_wide
from worker_svc.sampling.logprobs import ModelLogprobs
from worker_svc.sampling.penalties import PenaltyState
from worker_svc.sampling.tensors import FAILED, SamplingTensors


def sample(logits: Tensor, params: SamplingTensors, state: PenaltyState, room: Room) -> Tensor:
    """``[rows, params.words]`` int64 for ``logits`` ``[rows, vocabulary]`` (fp32, overwritten).

    First the id of each row, or FAILED; then, where any row of the step wants them, log-probabilities as
    :meth:`ModelLogprobs.words` lays them out.

    ``room``: for the rows as the model left them.

    torch alone, on CUDA as well: FlashInfer's samplers take one seed for a batch, so that what a row draws
    follows its place in it, and a request's own seed would promise nothing.
    """
    wanted = params.logprob_rows
    model = None
    if len(wanted):
        raw = room.take((len(wanted), logits.shape[1]), logits)
        model = ModelLogprobs(torch.index_select(logits, 0, wanted, out=raw), params.max_logprobs)
    _edit(logits, params, state)
    ids = _choose(logits, params)
    words = ids.new_zeros(len(ids), params.words)
    words[:, 0] = ids
    if model is not None:
        words[:, 1:].index_copy_(0, wanted, model.words(ids.index_select(0, wanted)))
    return words


def _edit(logits: Tensor, params: SamplingTensors, state: PenaltyState) -> None:
    """All that changes single logits; see the package's text for the order."""
    if len(params.biased_ids):
        at = (params.biased_rows, params.biased_ids)
        logits.index_put_(at, logits[at] + params.biases)
    if params.penalties is not None and len(params.penalties.entries):
        state.apply(logits, params.penalties)
    # A Python number would be copied to the device, and waited for.
    never = logits.new_full((), -torch.inf)
    if len(params.allowed_ids):
        at = (params.allowed_entries, params.allowed_ids)
        kept = logits[at]
        logits.index_fill_(0, params.allowed_rows, -torch.inf)
        logits.index_put_(at, kept)
    if len(params.masked_ids):
        logits.index_put_((params.masked_rows, params.masked_ids), never)


def _choose(logits: Tensor, params: SamplingTensors) -> Tensor:
    ids = torch.full((len(logits),), FAILED, dtype=torch.int64, device=logits.device)
    if not len(ids):
        return ids
    maxima = block_maxima(logits)
    if len(params.greedy):
        best, chosen = largest_ids(logits, maxima, params.greedy)
        ids.index_copy_(0, params.greedy, chosen.masked_fill_(~best.isfinite(), FAILED))
    if len(params.narrow):
        chosen, enough = draw_narrow(logits, maxima, params.narrow)
        if not bool(enough.all()):
            entries = torch.nonzero(~enough).squeeze(1)
            chosen.index_copy_(0, entries, draw_wide(logits, maxima, params.narrow.select(entries)))
        ids.index_copy_(0, params.narrow.rows, chosen)
    if len(params.wide):
        ids.index_copy_(0, params.wide.rows, draw_wide(logits, maxima, params.wide))
    return ids
