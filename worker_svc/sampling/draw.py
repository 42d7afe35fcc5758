"""Draws from the distribution that a row's controls leave of its logits. The sampler calls them.

Weights are integers (:mod:`worker_svc.sampling.cut`). Sums are sums of integers, which come out the same
in any order, or a softmax's, which is made of each row by itself; all else is done number by number. So
what a row draws depends on its logits, controls and uniform alone: not on the step's other rows, nor on the
number of threads. By few of its numbers or by all of them, it draws the same. 2^-44 of the largest weight,
over a whole vocabulary of 2^18, is 2^-26: fp32 has no finer resolution.

Every way to draw inverts the distribution in the order of ids. There are four. The input builder chooses one
for each row, by its controls and by the device:

- plain: no control restricts the row; one softmax.
- narrow, on a CPU only: by the largest numbers of the row. The host looks whether these were enough, and
  draws the row wide if not. On another device it would have to wait for the answer.
- bounded, on other devices: the row has a top_k of at most MAX_NARROW_K. Its ``top_k`` largest numbers decide
  what all controls keep, if of those that are equal to the last one all are counted. So they are always
  enough, and the host need not ask.
- wide: by all numbers, for a larger top_k or none. A top_p without top_k may keep any part of the vocabulary,
  and only the device knows whether few numbers were enough. If the host does not wait for that, both ways
  must be computed in every step, and the few numbers save nothing.

On CPUs that run the native kernels these draw plain rows, greedy ones, and those that a small top_k bounds
(:mod:`worker_svc.sampling.native_draw`): by the same rules, but for the last bit of a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from worker_svc.buffers.scratch import ScratchBuffer
from worker_svc.sampling.best import Best
from worker_svc.sampling.cut import UNIT, cut
from worker_svc.sampling.failed import FAILED
from worker_svc.sampling.inputs import Draws, select_draws
from worker_svc.sampling.ranking import ordered
from worker_svc.sampling.tiles import (
    LOWEST,
    TILE,
    largest_ids,
    list_largest,
    rows_in_slices,
    select_rows,
    slice_rows,
    tile_members,
    tile_sums,
)

NUCLEUS = 112
"""Where top_k does not say how many, so many of a row's largest logits are likely to hold its nucleus."""


class Few(NamedTuple):
    """What is left of rows, by their largest numbers alone."""

    ids: Tensor  # [rows, n], ascending
    mass: Tensor  # [rows, n] int64
    highest: Tensor  # [rows, 1], largest logit
    enough: Tensor  # [rows]: nothing else is left of the row


def take_largest(logits: Tensor, maxima: Tensor, rows: Tensor) -> Tensor:
    """The id of the largest logit of each of ``rows``, or FAILED. ``maxima``: of the tiles of all rows."""
    best, ids = largest_ids(logits, maxima, rows)
    return ids.masked_fill_(~best.isfinite(), FAILED)


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
    total = _totals(logits, draws, scratch) if draws.any_top_p and draws.any_unbounded else None
    mass, floor = cut(listed.values, highest, draws, total=total)
    everything = listed.floor == LOWEST
    enough = everything | (floor >= ordered(listed.floor))
    return Few(listed.ids, mass, highest, enough.squeeze(1))


def draw_bounded(logits: Tensor, maxima: Tensor, draws: Draws[Tensor]) -> Tensor:
    """Ids of rows of ``logits``, all of which have a top_k, by so many of their largest numbers."""
    ids = []
    for part, highest, draw in _parts(logits, maxima, draws):
        best, mass = bounded(part, highest, draw)
        ids.append(_draw_by_tiles(best.tile_sums(mass), partial(best.members, mass), draw, highest, part))
    return torch.cat(ids)


def bounded(logits: Tensor, highest: Tensor, draws: Draws[Tensor]) -> tuple[Best, Tensor]:
    """The largest numbers of ``logits`` ``[rows, n]`` and what the controls leave of each: int64."""
    best = Best(logits, min(draws.max_top_k, logits.shape[1]))
    return best, cut(best.values, highest, draws, times=best.times)[0]


def draw_wide(logits: Tensor, maxima: Tensor, draws: Draws[Tensor]) -> Tensor:
    """Ids of rows of ``logits``, by all of their numbers."""
    ids = []
    for part, highest, draw in _parts(logits, maxima, draws):
        mass = whole(part, highest, draw)
        ids.append(_draw_by_tiles(tile_sums(mass), partial(tile_members, mass), draw, highest, part))
    return torch.cat(ids)


def whole(logits: Tensor, highest: Tensor, draws: Draws[Tensor]) -> Tensor:
    """What the controls leave of ``logits`` ``[rows, n]``, one row for each of ``draws``: int64, likewise."""
    total = None
    if draws.any_top_p and draws.any_unbounded:  # as `narrow` computes it, so that both cut at the same place
        total = _total(torch.softmax(logits / draws.temperature.unsqueeze(1), -1))
    return cut(logits, highest, draws, total=total)[0]


def _draw_by_tiles(
    sums: Tensor, members: Callable[[Tensor], Tensor], draws: Draws[Tensor], highest: Tensor, logits: Tensor
) -> Tensor:
    """Ids ``[rows]``: a tile by ``sums`` ``[rows, tiles]``, then one of its ``members``, the mass of each."""
    tile, rest, _ = _find_tile(sums, draws.uniforms)
    ids = _ids(tile, _first_above(members(tile).cumsum(-1), rest), logits)
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


def _pick(mass: Tensor, uniforms: Tensor) -> Tensor:
    """Index ``[rows, 1]`` of the number of ``mass`` ``[rows, n]`` that each uniform falls on."""
    cumulated = mass.cumsum(-1)
    return _first_above(cumulated, _target(cumulated[:, -1:], uniforms))


def _first_above(cumulated: Tensor, target: Tensor) -> Tensor:
    """Index of the first sum that exceeds the target: that of a number of no mass never is."""
    return (cumulated <= target).sum(-1, keepdim=True).clamp_(max=cumulated.shape[1] - 1)


def _target(total: Tensor, uniforms: Tensor) -> Tensor:
    return torch.minimum((uniforms.unsqueeze(1) * total).long(), total - 1)


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


def _parts(
    logits: Tensor, maxima: Tensor, draws: Draws[Tensor]
) -> Iterator[tuple[Tensor, Tensor, Draws[Tensor]]]:
    """A few rows at a time: their logits, the largest of each ``[rows, 1]``, and what belongs to them."""
    highest = select_rows(maxima, draws.rows).amax(-1, keepdim=True)
    parts = rows_in_slices(logits, draws.rows)
    for (entries, draw), part in zip(_slices(draws, logits), parts, strict=True):
        yield part, highest.index_select(0, entries), draw


def _slices(draws: Draws[Tensor], logits: Tensor) -> Iterator[tuple[Tensor, Draws[Tensor]]]:
    """A few rows at a time: their entries, and what belongs to them."""
    entries = torch.arange(len(draws), device=logits.device)
    for some in entries.split(slice_rows(logits)):
        yield some, select_draws(draws, some)


def _drawable(mass: Tensor, highest: Tensor) -> Tensor:
    """``[rows]``: whether the row's largest logit is a number, and anything is left of it."""
    return (highest.isfinite() & (mass.sum(-1, keepdim=True) > 0)).squeeze(1)
