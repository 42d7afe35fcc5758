"""From logits to token ids (T4): a function of logits and per-row parameters, whoever calls it.

Order of the controls, as in transformers: temperature, top_k, top_p, min_p. Each is turned into a
threshold on the row's logits, so that a row's outcome depends on its own numbers alone, never on how
equal logits happen to be sorted beside other rows; tokens that are equal to the threshold are kept.
The draw inverts the distribution in the order of token ids.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Largest logits of a row among which top_p is looked for before the whole row is sorted (CPU only).
TOP_P_CANDIDATES = 1024

FAILED = -1
"""Stands for the id of a row whose logits are not numbers, or leave nothing to draw."""


@dataclass(frozen=True, slots=True)
class SamplingTensors:
    """Parameters of ``s`` rows on the device, and what the host knows of them beforehand."""

    greedy: Tensor  # rows with temperature 0
    drawn: Tensor  # the others; the tensors below have one entry for each of these
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    uniforms: Tensor  # fp64 in [0, 1)
    max_top_k: int  # largest top_k among them
    any_top_p: bool
    any_min_p: bool
    masked_rows: Tensor
    masked_ids: Tensor
    logprob_rows: Tensor
    max_logprobs: int  # most top log-probabilities that a row wants


@dataclass(frozen=True, slots=True)
class SampledLogprobs:
    """Log-probabilities of the rows in ``logprob_rows``: natural logarithm, before any control."""

    chosen: Tensor  # [r]
    top_ids: Tensor  # [r, max_logprobs]
    top: Tensor  # [r, max_logprobs]


def sample(logits: Tensor, params: SamplingTensors) -> tuple[Tensor, SampledLogprobs | None]:
    """Draws one id for each row of ``logits`` ``[s, vocabulary]`` (fp32, overwritten)."""
    wanted = params.logprob_rows
    raw = logits.index_select(0, wanted).log_softmax(-1) if len(wanted) else None
    if len(params.masked_rows):
        # A Python number here would be copied to the device, and waited for.
        logits.index_put_((params.masked_rows, params.masked_ids), logits.new_full((), -torch.inf))
    ids = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    if len(params.greedy):
        whole = len(params.greedy) == len(logits)
        best, choice = (logits if whole else logits.index_select(0, params.greedy)).max(dim=-1)
        ids.index_copy_(0, params.greedy, choice.masked_fill_(~best.isfinite(), FAILED))
    if len(params.drawn):
        ids.index_copy_(0, params.drawn, _draw(logits.index_select(0, params.drawn), params))
    if raw is None:
        return ids, None
    top, top_ids = raw.topk(params.max_logprobs, dim=-1)
    chosen = raw.gather(1, ids.index_select(0, wanted).clamp(min=0).unsqueeze(1)).squeeze(1)
    return ids, SampledLogprobs(chosen, top_ids, top)


def _draw(logits: Tensor, params: SamplingTensors) -> Tensor:
    logits /= params.temperature.unsqueeze(1)
    highest = logits.amax(dim=-1, keepdim=True)
    threshold = _threshold(logits, highest, params)
    if threshold is not None:
        logits.masked_fill_(logits < threshold, -torch.inf)
    cumulative = (logits - highest).exp_().cumsum(dim=-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    target = params.uniforms.unsqueeze(1) * total
    # The first id whose cumulated weight exceeds the target: one of weight zero is never found.
    ids = torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp_(max=logits.shape[1] - 1)
    return ids.masked_fill_(~total.squeeze(1).isfinite(), FAILED)


def _threshold(logits: Tensor, highest: Tensor, params: SamplingTensors) -> Tensor | None:
    """Smallest logit ``[rows, 1]`` that each row keeps; None where no row has a control."""
    threshold = None
    if params.max_top_k or params.any_top_p:
        threshold = _sorted_threshold(logits, params)
    if params.any_min_p:
        floor = highest + params.min_p.log().unsqueeze(1)
        threshold = floor if threshold is None else torch.maximum(threshold, floor)
    return threshold


def _sorted_threshold(logits: Tensor, params: SamplingTensors) -> Tensor:
    vocabulary = logits.shape[1]
    candidates = min(vocabulary, max(params.max_top_k, TOP_P_CANDIDATES if params.any_top_p else 0))
    if logits.is_cuda and params.any_top_p:
        candidates = vocabulary  # looking whether few are enough would wait for the device
    largest = logits.topk(candidates, dim=-1).values
    top_k = params.top_k.unsqueeze(1)
    last = largest.gather(1, top_k.clamp(1, candidates) - 1)
    threshold = last.masked_fill(top_k == 0, -torch.inf)
    if not params.any_top_p:
        return threshold
    kept, enough = _nucleus(logits, largest, threshold, params.top_p)
    if not logits.is_cuda and not bool(enough.all()):
        rows = torch.nonzero(~enough).squeeze(1)
        few = logits.index_select(0, rows)
        whole = few.sort(dim=-1, descending=True).values
        kept[rows] = _nucleus(few, whole, threshold[rows], params.top_p[rows])[0]
    return torch.where(params.top_p.unsqueeze(1) < 1, torch.maximum(threshold, kept), threshold)


def _nucleus(logits: Tensor, largest: Tensor, threshold: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest logit of the nucleus (Holtzman et al. 2019, arXiv 1904.09751) within ``>= threshold``.

    ``largest`` are the row's largest logits, descending. Also returns whether they reach ``top_p``.
    """
    normalizer = logits.masked_fill(logits < threshold, -torch.inf).logsumexp(-1, keepdim=True)
    weights = (largest - normalizer).exp_().masked_fill_(largest < threshold, 0)
    before = weights.cumsum(-1) - weights
    inside = (before < top_p.unsqueeze(1)) & (largest >= threshold)
    count = inside.sum(-1, keepdim=True).clamp(min=1)
    exhausted = count.squeeze(1) < largest.shape[1]
    return largest.gather(1, count - 1), exhausted | (top_p >= 1) | (largest.shape[1] == logits.shape[1])
