"""Draws from the distribution that a row's controls leave of its logits. The sampler calls them.

A weight is ``exp(relative)``, ``relative`` being what a logit is below the row's largest, over temperature;
it is counted as an integer multiple of 2^-44. Sums are sums of integers, which come out the same in any
order, or a softmax's, which is made of each row by itself; all else is done number by number. So what a row
draws depends on its logits, controls and uniform alone: not on the step's other rows, nor on the number of
threads. By few of its numbers or by all of them, it draws the same. 2^-44 of the largest weight, over a whole
vocabulary of 2^18, is 2^-26: fp32 has no finer resolution.

Every control keeps what lies at or above a threshold; a draw inverts the distribution in the order of ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from worker_svc.buffers.scratch import ScratchBuffer
from worker_svc.sampling.failed import FAILED
from worker_svc.sampling.inputs import Draws, select_draws
from worker_svc.sampling.tiles import (
    LOWEST,
    TILE,
    list_largest,
    rows_in_slices,
    select_rows,
    slice_rows,
    tile_members,
    tile_sums,
)

UNIT = 2.0**44
"""Weights are counted in its inverse. A vocabulary may have 2^18 ids: their sum stays below 2^63."""

MAX_NARROW_K = 256
"""Largest top_k that is looked for among a row's largest logits only."""

NUCLEUS = 112
"""Where top_k does not say how many, so many of a row's largest logits are likely to hold its nucleus."""

SORTED = 4096
"""Up to so many numbers a row are sorted to find a threshold; more are bisected."""


class Few(NamedTuple):
    """What is left of rows, by their largest numbers alone."""

    ids: Tensor  # [rows, n], ascending
    mass: Tensor  # [rows, n] int64
    highest: Tensor  # [rows, 1], largest logit
    enough: Tensor  # [rows]: nothing else is left of the row


def draw_plain(logits: Tensor, maxima: Tensor, draws: Draws[Tensor], scratch: ScratchBuffer) -> Tensor:
    """Ids of rows of ``logits`` that no control restricts: by one softmax, and sums of its tiles."""
    ids = []
    for _, part, chances in _softmax(logits, draws, scratch):
        tile, rest, sums = _find_tile((tile_sums(chances) * UNIT).long(), part.uniforms)
        members = (tile_members(chances, tile) * UNIT).long().cumsum(-1)
        # The tile's sum was rounded, so what is left of the target is taken as a share of it.
        rest = torch.minimum((rest.double() / sums * members[:, -1:]).long(), members[:, -1:] - 1)
        ids.append(_ids(tile, _first_above(members, rest), logits))
    highest = select_rows(maxima, draws.rows).amax(-1)
    return torch.cat(ids).masked_fill_(~highest.isfinite(), FAILED)


def draw_narrow(
    logits: Tensor, maxima: Tensor, draws: Draws[Tensor], scratch: ScratchBuffer
) -> tuple[Tensor, Tensor]:
    """Ids of rows of ``logits`` by their largest numbers, and whether those were enough to know.

    ``maxima``: of the logits' tiles. CPU only.
    """
    few = narrow(logits, maxima, draws, scratch)
    ids = few.ids.gather(1, _pick(few.mass, draws.uniforms)).squeeze(1)
    return ids.masked_fill_(~_drawable(few.mass, few.highest), FAILED), few.enough


def narrow(logits: Tensor, maxima: Tensor, draws: Draws[Tensor], scratch: ScratchBuffer) -> Few:
    """What the controls leave of rows of ``logits``, as far as its largest numbers show."""
    counts = draws.top_k.masked_fill(draws.top_k == 0, NUCLEUS)
    most = max(draws.max_top_k, NUCLEUS if draws.any_unbounded else 0)
    maxima = select_rows(maxima, draws.rows)
    listed = list_largest(logits, draws.rows, maxima, counts, most)
    highest = maxima.amax(-1, keepdim=True)
    relative = _relative(listed.values, highest, draws)
    total = _totals(logits, draws, scratch) if draws.any_top_p and draws.any_unbounded else None
    mass, floor = _restrict(listed.values, relative, highest, draws, total)
    everything = listed.floor == LOWEST
    enough = everything | (floor >= _ordered(listed.floor))
    return Few(listed.ids, mass, highest, enough.squeeze(1))


def draw_wide(logits: Tensor, maxima: Tensor, draws: Draws[Tensor]) -> Tensor:
    """Ids of rows of ``logits``, by all of their numbers."""
    highest = select_rows(maxima, draws.rows).amax(-1, keepdim=True)
    parts = rows_in_slices(logits, draws.rows)
    ids = [
        _draw_whole(part, highest.index_select(0, entries), draw)
        for (entries, draw), part in zip(_slices(draws, logits), parts, strict=True)
    ]
    return torch.cat(ids)


def whole(logits: Tensor, highest: Tensor, draws: Draws[Tensor]) -> Tensor:
    """What the controls leave of ``logits`` ``[rows, n]``, one row for each of ``draws``: int64, likewise."""
    total = None
    if draws.any_top_p and draws.any_unbounded:  # as `narrow` computes it, so that both cut at the same place
        total = _total(torch.softmax(logits / draws.temperature.unsqueeze(1), -1))
    return _restrict(logits, _relative(logits, highest, draws), highest, draws, total)[0]


def _draw_whole(logits: Tensor, highest: Tensor, draws: Draws[Tensor]) -> Tensor:
    mass = whole(logits, highest, draws)
    sums = tile_sums(mass)
    tile, rest, _ = _find_tile(sums, draws.uniforms)
    ids = _ids(tile, _first_above(tile_members(mass, tile).cumsum(-1), rest), logits)
    return ids.masked_fill_(~_drawable(sums, highest), FAILED)


def _find_tile(sums: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where in the inverse distribution each uniform falls: ``[rows, 1]`` each, a tile by ``sums`` ``[rows,
    tiles]``, how far into it, and its sum."""
    cumulated = sums.cumsum(-1)
    target = _target(cumulated[:, -1:], uniforms)
    tile = _first_above(cumulated, target)
    found = sums.gather(1, tile)
    return tile, target - cumulated.gather(1, tile) + found, found


def _ids(tile: Tensor, within: Tensor, logits: Tensor) -> Tensor:
    return (tile * TILE + within).clamp_(max=logits.shape[1] - 1).squeeze(1)


def _restrict(
    logits: Tensor, relative: Tensor, highest: Tensor, draws: Draws[Tensor], total: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mass ``[rows, n]`` that the controls leave, and the ordered value of the smallest logit they keep.

    ``total``: mass of all of a row, of which ``logits`` may hold the largest only; for rows without top_k.
    """
    mass = _weights(relative)
    floor = torch.full((len(logits), 1), _LOWEST, dtype=torch.int32, device=logits.device)
    if not (draws.max_top_k or draws.any_top_p or draws.any_min_p or draws.any_typical_p):
        return mass, floor
    order = _ordered(logits)
    ranking = _Ranking(order)
    if draws.max_top_k:
        floor = torch.where(draws.top_k.unsqueeze(1) > 0, ranking.kth(draws.top_k, draws.max_top_k), floor)
        mass.masked_fill_(order < floor, 0)
    if draws.any_top_p:
        left = mass.sum(-1, keepdim=True)
        if total is not None:
            left = torch.where(draws.top_k.unsqueeze(1) > 0, left, total)
        target = _share(draws.top_p, left)
        # Where too few of a row are here, what is known is only that the threshold lies below them.
        crossing = ranking.crossing(mass, target)
        crossing.masked_fill_(mass.sum(-1, keepdim=True) < target, _LOWEST)
        floor = torch.where(draws.top_p.unsqueeze(1) < 1, torch.maximum(floor, crossing), floor)
    if draws.any_min_p:
        least = highest + draws.temperature.unsqueeze(1) * draws.min_p.log().unsqueeze(1)
        floor = torch.maximum(floor, _ordered(least))
    if draws.any_top_p or draws.any_min_p:
        mass.masked_fill_(order < floor, 0)
    if draws.any_typical_p:
        mass = _typical(relative, mass, draws.typical_p)
    return mass, floor


def _typical(relative: Tensor, mass: Tensor, typical_p: Tensor) -> Tensor:
    """Keeps the ids whose surprise is nearest to the expected one (Meister et al. 2022, arXiv 2202.00666).

    Surprise less entropy is ``E[relative] - relative``: the normalizer cancels.
    """
    number = relative.double().clamp_(min=-64)  # less weighs nothing, but must be a number
    total = mass.sum(-1, keepdim=True)
    # |x exp(x)| is at most 1/e: the sum fits, in units of 2^-40.
    mean = (mass * number / 16).to(torch.int64).sum(-1, keepdim=True).double() * 16 / total
    order = _ordered(-(number - mean).abs().float()).masked_fill_(mass == 0, _LOWEST)
    crossing = _Ranking(order).crossing(mass, _share(typical_p, total))
    return mass.masked_fill((order < crossing) & (typical_p.unsqueeze(1) < 1), 0)


class _Ranking:
    """Finds thresholds among the numbers of each row, given as integers in the same order."""

    def __init__(self, order: Tensor) -> None:
        self._order = order

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor]:
        descending, places = self._order.sort(dim=-1, descending=True)
        return descending, places

    def kth(self, counts: Tensor, most: int) -> Tensor:
        """The ``counts``-th largest ``[rows, 1]``, below all where a row has fewer; ``most``: counted."""
        n = self._order.shape[1]
        last = counts.unsqueeze(1).clamp(1, n)
        if n <= SORTED:
            found = self._sorted[0].gather(1, last - 1)
        elif most <= MAX_NARROW_K:
            found = self._order.topk(most, dim=-1).values.gather(1, last - 1)
        else:
            found = self.crossing(torch.ones_like(self._order, dtype=torch.int64), last)
        return found.masked_fill_(counts.unsqueeze(1) > n, _LOWEST)

    def crossing(self, mass: Tensor, target: Tensor) -> Tensor:
        """The largest value ``[rows, 1]`` at and above which a row has ``target`` ``[rows, 1]`` mass."""
        if self._order.shape[1] <= SORTED:
            descending, places = self._sorted
            reached = (mass.gather(1, places).cumsum(-1) < target).sum(-1, keepdim=True)
            return descending.gather(1, reached.clamp_(max=descending.shape[1] - 1))
        low = torch.full_like(target, _LOWEST)
        high = self._order.amax(-1, keepdim=True).long()
        for _ in range(32):  # halves a range of 2^32
            middle = (low + high + 1) >> 1
            enough = mass.masked_fill(self._order < middle.int(), 0).sum(-1, keepdim=True) >= target
            low, high = torch.where(enough, middle, low), torch.where(enough, high, middle - 1)
        return low.int()


def _pick(mass: Tensor, uniforms: Tensor) -> Tensor:
    """Index ``[rows, 1]`` of the number of ``mass`` ``[rows, n]`` that each uniform falls on."""
    cumulated = mass.cumsum(-1)
    return _first_above(cumulated, _target(cumulated[:, -1:], uniforms))


def _first_above(cumulated: Tensor, target: Tensor) -> Tensor:
    """Index of the first sum that exceeds the target: that of a number of no mass never is."""
    return (cumulated <= target).sum(-1, keepdim=True).clamp_(max=cumulated.shape[1] - 1)


def _target(total: Tensor, uniforms: Tensor) -> Tensor:
    return torch.minimum((uniforms.unsqueeze(1) * total).long(), total - 1)


def _share(part: Tensor, total: Tensor) -> Tensor:
    return torch.minimum((part.unsqueeze(1) * total.double()).ceil_().long(), total).clamp_(min=1)


def _relative(logits: Tensor, highest: Tensor, draws: Draws[Tensor]) -> Tensor:
    return (logits - highest).div_(draws.temperature.unsqueeze(1))


def _weights(relative: Tensor) -> Tensor:
    """int64, in units of 1 / UNIT, rounded down."""
    return relative.exp().mul_(UNIT).to(torch.int64)


def _totals(logits: Tensor, draws: Draws[Tensor], scratch: ScratchBuffer) -> Tensor:
    """Mass ``[rows, 1]`` of whole rows, where they have no top_k."""
    totals = torch.zeros(len(draws), 1, dtype=torch.int64, device=logits.device)
    unbounded = (draws.top_k == 0).nonzero().squeeze(1)
    for some, _, chances in _softmax(logits, select_draws(draws, unbounded), scratch):
        totals.index_copy_(0, unbounded.index_select(0, some), _total(chances))
    return totals


def _total(chances: Tensor) -> Tensor:
    """The largest weight is 1: its chance is the inverse of the sum of all."""
    return (UNIT / chances.amax(-1, keepdim=True).double()).long()


def _softmax(
    logits: Tensor, draws: Draws[Tensor], scratch: ScratchBuffer
) -> Iterator[tuple[Tensor, Draws[Tensor], Tensor]]:
    """As :func:`_slices`, and with each the chances of all ids, before any control; good until the next."""
    few = min(len(draws), slice_rows(logits))
    scaled, chances = scratch.take((2, few, logits.shape[1]), logits)
    parts = rows_in_slices(logits, draws.rows)
    for (entries, draw), part in zip(_slices(draws, logits), parts, strict=True):
        torch.div(part, draw.temperature.unsqueeze(1), out=scaled[: len(part)])
        yield entries, draw, torch.softmax(scaled[: len(part)], -1, out=chances[: len(part)])


def _slices(draws: Draws[Tensor], logits: Tensor) -> Iterator[tuple[Tensor, Draws[Tensor]]]:
    """A few rows at a time: their entries, and what belongs to them."""
    entries = torch.arange(len(draws), device=logits.device)
    for some in entries.split(slice_rows(logits)):
        yield some, select_draws(draws, some)


def _drawable(mass: Tensor, highest: Tensor) -> Tensor:
    """``[rows]``: whether the row's largest logit is a number, and anything is left of it."""
    return (highest.isfinite() & (mass.sum(-1, keepdim=True) > 0)).squeeze(1)


_LOWEST = -(2**31)


def _ordered(x: Tensor) -> Tensor:
    """fp32 as int32 in the same order, -0 just below 0."""
    bits = x.view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
