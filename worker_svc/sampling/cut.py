"""What a row's controls leave of its distribution: the mass of each of its numbers, and where they cut.

The draws call it, in the compute stage. A weight is ``exp(relative)``, ``relative`` being what a logit is
below the row's largest, over temperature; it is counted as an integer multiple of 2^-44. Every control keeps
what lies at or above a threshold.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worker_svc.sampling.inputs import Draws
from worker_svc.sampling.ranking import LOWEST_ORDER, Ranking, ordered

UNIT = 2.0**44
"""Weights are counted in its inverse. A vocabulary may have 2^18 ids: their sum stays below 2^63."""


def cut(
    logits: Tensor,
    highest: Tensor,
    draws: Draws[Tensor],
    *,
    total: Tensor | None = None,
    times: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mass ``[rows, n]`` that the controls leave, and the ordered value of the smallest logit they keep.

    ``logits``: ``[rows, n]``; ``highest``: the largest of each row, ``[rows, 1]``.
    ``total``: mass of all of a row, of which ``logits`` may hold the largest only; for rows without top_k.
    ``times``: how often each of ``logits`` counts in its row, ``[rows, n]`` int64; None for once each. The
    mass is that of one of them.
    """
    relative = (logits - highest).div_(draws.temperature.unsqueeze(1))
    mass = relative.exp().mul_(UNIT).to(torch.int64)  # rounded down
    floor = torch.full((len(logits), 1), LOWEST_ORDER, dtype=torch.int32, device=logits.device)
    if not (draws.max_top_k or draws.any_top_p or draws.any_min_p or draws.any_typical_p):
        return mass, floor
    order = ordered(logits)
    if draws.max_top_k or draws.any_top_p:
        floor = _rank_floor(order, mass, floor, draws, total, times)
    if draws.any_min_p:
        least = highest + draws.temperature.unsqueeze(1) * draws.min_p.log().unsqueeze(1)
        floor = torch.maximum(floor, ordered(least))
    if draws.any_top_p or draws.any_min_p:
        mass.masked_fill_(order < floor, 0)
    if draws.any_typical_p:
        mass = _typical(relative, mass, draws.typical_p, times)
    return mass, floor


def _rank_floor(
    order: Tensor,
    mass: Tensor,
    floor: Tensor,
    draws: Draws[Tensor],
    total: Tensor | None,
    times: Tensor | None,
) -> Tensor:
    """The larger of the thresholds of top_k and top_p ``[rows, 1]``, ``floor`` for rows that have neither.

    ``mass`` becomes zero below that of top_k. A function of its own, so that the ranking's memory is free
    again when typical_p needs one.
    """
    ranking = Ranking(order)
    if draws.max_top_k:
        floor = torch.where(draws.top_k.unsqueeze(1) > 0, ranking.kth(draws.top_k, draws.max_top_k), floor)
        mass.masked_fill_(order < floor, 0)
    if draws.any_top_p:
        floor = torch.maximum(floor, _nucleus(ranking, _all_of(mass, times), draws, total))
    return floor


def _nucleus(ranking: Ranking, mass: Tensor, draws: Draws[Tensor], total: Tensor | None) -> Tensor:
    """The threshold ``[rows, 1]`` of top_p, below all for rows without it."""
    here = mass.sum(-1, keepdim=True)
    left = here if total is None else torch.where(draws.top_k.unsqueeze(1) > 0, here, total)
    target = _share(draws.top_p, left)
    # Where too few of a row are here, what is known is only that the threshold lies below them.
    unknown = (here < target) | (draws.top_p.unsqueeze(1) >= 1)
    return ranking.crossing(mass, target).masked_fill_(unknown, LOWEST_ORDER)


def _typical(relative: Tensor, mass: Tensor, typical_p: Tensor, times: Tensor | None) -> Tensor:
    """Keeps the ids whose surprise is nearest to the expected one (Meister et al. 2022, arXiv 2202.00666).

    Surprise less entropy is ``E[relative] - relative``: the normalizer cancels.
    """
    every = _all_of(mass, times)
    total = every.sum(-1, keepdim=True)
    order = _nearness(relative, mass, total, times)
    crossing = Ranking(order).crossing(every, _share(typical_p, total))
    return mass.masked_fill_((order < crossing) & (typical_p.unsqueeze(1) < 1), 0)


def _nearness(relative: Tensor, mass: Tensor, total: Tensor, times: Tensor | None) -> Tensor:
    """How near the surprise of each number is to the expected one, ordered; below all where no mass is."""
    number = relative.double().clamp_(min=-64)  # less weighs nothing, but must be a number
    # |x exp(x)| is at most 1/e: the sum fits, in units of 2^-40.
    weighted = _all_of((mass * number).div_(16).to(torch.int64), times)
    mean = weighted.sum(-1, keepdim=True).double() * 16 / total
    return ordered(number.sub_(mean).abs_().neg_().float()).masked_fill_(mass == 0, LOWEST_ORDER)


def _all_of(mass: Tensor, times: Tensor | None) -> Tensor:
    return mass if times is None else mass * times


def _share(part: Tensor, total: Tensor) -> Tensor:
    return torch.minimum((part.unsqueeze(1) * total.double()).ceil_().long(), total).clamp_(min=1)
