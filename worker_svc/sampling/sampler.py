"""The sampler of one rank: from whole rows of logits to ids, and the log-probabilities that are wanted.

:class:`worker_svc.sampling.step_sampler.StepSampler` calls it, in the compute stage.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worker_svc.buffers.scratch import ScratchBuffer
from worker_svc.sampling.draw import draw_bounded, draw_narrow, draw_plain, draw_wide, take_largest
from worker_svc.sampling.failed import FAILED
from worker_svc.sampling.inputs import SamplingInput, select_draws
from worker_svc.sampling.logprobs import ModelLogprobs
from worker_svc.sampling.native_draw import draw_native
from worker_svc.sampling.penalties import Change, PenaltyState
from worker_svc.sampling.tiles import tile_maxima


def sample(
    logits: Tensor, params: SamplingInput[Tensor], state: PenaltyState, scratch: ScratchBuffer
) -> Tensor:
    """``[rows, params.words]`` int64 for ``logits`` ``[rows, vocabulary]`` (fp32, overwritten).

    First the id of each row, or FAILED; then, where any row of the step wants them, log-probabilities as
    :meth:`ModelLogprobs.words` lays them out.

    ``scratch``: for a few rows at a time.

    torch alone, on CUDA as well: FlashInfer's samplers take one seed for a batch, so that what a row draws
    depends on its index in the batch, and not on the request's own seed alone.
    """
    wanted = params.logprob_rows
    model = ModelLogprobs(logits, wanted, params.max_logprobs, scratch) if len(wanted) else None
    changes = _edit(logits, params, state)
    ids = _choose(logits, params, scratch)
    if params.words == 1:
        return ids.unsqueeze(1)
    words = ids.new_zeros(len(ids), params.words)
    words[:, 0] = ids
    if model is not None:
        for change in reversed(changes):
            logits.index_put_(change.at, change.before)
        words[:, 1:].index_copy_(0, wanted, model.words(logits, ids))
        # A logit may be NaN where the row's controls never look: it spoils the log-probabilities too.
        known = ids.index_select(0, wanted).masked_fill_(~model.known, FAILED)
        words[:, 0].index_copy_(0, wanted, known)
    return words


def _edit(logits: Tensor, params: SamplingInput[Tensor], state: PenaltyState) -> list[Change]:
    """All that changes single logits; see the package's text for the order. Returns what changed of ids that
    may be chosen: cheaper to put back than whole rows are to keep."""
    changes = []
    if len(params.biased):
        at = (params.biased.rows, params.biased.ids)
        changes.append(Change(at, logits[at]))
        logits.index_put_(at, changes[-1].before + params.biases)
    if params.penalties is not None and len(params.penalties.entries):
        changes.append(state.apply(logits, params.penalties))
    # A Python number would be copied to the device, and waited for.
    never = logits.new_full((), -torch.inf)
    if len(params.allowed):
        at = (params.allowed.rows, params.allowed.ids)
        kept = logits[at]
        logits.index_fill_(0, params.allowed_rows, -torch.inf)
        logits.index_put_(at, kept)
    if len(params.masked):
        logits.index_put_((params.masked.rows, params.masked.ids), never)
    return changes


def _choose(logits: Tensor, params: SamplingInput[Tensor], scratch: ScratchBuffer) -> Tensor:
    if params.native is not None and len(params.native) == len(logits):
        return draw_native(logits, params.native)
    ids = torch.full((len(logits),), FAILED, dtype=torch.int64, device=logits.device)
    if not len(ids):
        return ids
    if params.native is not None:
        ids.index_copy_(0, params.native.rows, draw_native(logits, params.native))
    maxima = tile_maxima(logits)
    if len(params.greedy):
        ids.index_copy_(0, params.greedy, take_largest(logits, maxima, params.greedy))
    if params.plain is not None:
        ids.index_copy_(0, params.plain.rows, draw_plain(logits, maxima, params.plain, scratch))
    if params.narrow is not None:
        chosen, enough = draw_narrow(logits, maxima, params.narrow, scratch)
        if not bool(enough.all()):
            entries = torch.nonzero(~enough).squeeze(1)
            chosen.index_copy_(0, entries, draw_wide(logits, maxima, select_draws(params.narrow, entries)))
        ids.index_copy_(0, params.narrow.rows, chosen)
    if params.bounded is not None:
        ids.index_copy_(0, params.bounded.rows, draw_bounded(logits, maxima, params.bounded))
    if params.wide is not None:
        ids.index_copy_(0, params.wide.rows, draw_wide(logits, maxima, params.wide))
    return ids
