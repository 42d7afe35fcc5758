"""Selection of the largest numbers of rows of the logits, by tiles: 128 adjacent columns each.

The sampler, the draws and the log-probabilities call it in the compute stage. One pass finds the largest
number of each tile, all else looks at few tiles.

The k-th largest of the tiles' own largest numbers is a floor for the k-th largest number of the row, since
each of those k tiles has at least one that is no smaller; and only few tiles reach it. So selection costs
one pass over memory and a look at these tiles, where a sort, or a heap over the row, costs many.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from worker_svc.buffers.arrays import Ints

TILE = 128
"""Columns of a tile; the last one of a row may have fewer."""

MOST_LISTED = 2048
"""Numbers of a row that are worth listing: more of them (where many are equal) are left to other means."""

SLICE = {"cpu": 1 << 19, "cuda": 1 << 24}
"""Numbers that are worked on at a time where all of them matter. On a CPU they should stay in its cache; on
CUDA a wide draw takes up to 52 bytes of memory for each."""

Numbers = npt.NDArray[np.float32]

LOWEST = torch.finfo(torch.float32).min


class Listed(NamedTuple):
    """All numbers of each row from a floor on."""

    values: Tensor  # [rows, n], -inf where a row has fewer
    ids: Tensor  # [rows, n], ascending
    floor: Tensor  # [rows, 1]; inf for a row that has too many to list, of which none is


def tile_maxima(x: Tensor) -> Tensor:
    """``[rows, tiles]`` of ``x`` ``[rows, n]``; the last tile may be short."""
    body, tail = _split(x)
    if not tail.shape[1]:
        return body.amax(-1)
    return torch.cat([body.amax(-1), tail.amax(-1, keepdim=True)], dim=1)


def tile_sums(x: Tensor) -> Tensor:
    """Likewise. The order within a tile does not depend on other tiles; integers may be summed in any."""
    body, tail = _split(x)
    return torch.cat([body.sum(-1), tail.sum(-1, keepdim=True)], dim=1)


def tile_members(x: Tensor, tile: Tensor, *, beyond: float = 0) -> Tensor:
    """``[rows, TILE]``: the numbers of one tile ``[rows, 1]`` each, ``beyond`` where the row has ended."""
    ids = tile * TILE + torch.arange(TILE, device=x.device)
    return x.gather(1, ids.clamp(max=x.shape[1] - 1)).masked_fill_(ids >= x.shape[1], beyond)


def largest_ids(x: Tensor, maxima: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The largest number of each of ``rows``, and the lowest id that has it; NaN counts as largest."""
    best, tile = maxima.index_select(0, rows).max(-1, keepdim=True)
    ids = (tile * TILE + torch.arange(TILE, device=x.device)).clamp_(max=x.shape[1] - 1)
    # Clamped ids repeat the row's last number, which cannot come before itself.
    within = x[rows.unsqueeze(1), ids].argmax(-1, keepdim=True)
    return best.squeeze(1), ids.gather(1, within).squeeze(1)


def list_largest(x: Tensor, rows: Tensor, maxima: Tensor, counts: Tensor, most: int) -> Listed:
    """Of each of some ``rows`` of ``x`` at least the ``counts`` largest, if there are so many.

    ``maxima``: of these rows' tiles; ``most``: the largest count. CPU only: how many there are must be
    waited for. By numpy, which compares and finds several times faster there than torch.
    """
    row_of, tops = rows.numpy(), maxima.numpy()
    floor = _floor(tops, counts.numpy(), most)
    reaching = tops >= floor
    # Tiles, of a row of many equal numbers.
    many = np.count_nonzero(reaching, axis=1) > MOST_LISTED // 2
    if many.any():
        floor[many] = np.inf
        reaching = tops >= floor
    row, tile = np.divmod(np.flatnonzero(reaching), tops.shape[1])
    members = _members(x.numpy(), row_of[row], tile)
    found = np.flatnonzero(members >= floor[row])
    row, tile, place = row[found // TILE], tile[found // TILE], found % TILE
    listed = np.bincount(row, minlength=len(rows))
    if (listed > MOST_LISTED).any():
        floor[listed > MOST_LISTED] = np.inf
        fit = listed[row] <= MOST_LISTED
        row, tile, place, found = row[fit], tile[fit], place[fit], found[fit]
        listed = np.bincount(row, minlength=len(rows))
    column = np.arange(len(row)) - (listed.cumsum() - listed)[row]
    shape = len(rows), max(1, int(listed.max(initial=0)))
    values = np.full(shape, -np.inf, dtype=np.float32)
    values[row, column] = members.reshape(-1)[found]
    ids = np.full(shape, x.shape[1] - 1)
    ids[row, column] = tile * TILE + place
    return Listed(torch.from_numpy(values), torch.from_numpy(ids), torch.from_numpy(floor))


def select_rows(x: Tensor, rows: Tensor) -> Tensor:
    """``rows`` of ``x``, ascending: ``x`` itself where these are all."""
    return x if len(rows) == len(x) else x.index_select(0, rows)


def rows_in_slices(x: Tensor, rows: Tensor) -> Iterator[Tensor]:
    """The same, a few rows at a time: :func:`slice_rows` of them."""
    few = slice_rows(x)
    if len(rows) == len(x):
        yield from x.split(few)
    else:
        for some in rows.split(few):
            yield x.index_select(0, some)


def slice_rows(x: Tensor) -> int:
    """How many rows of ``x`` are worked on at a time where all of their numbers matter."""
    return max(1, SLICE[x.device.type] // x.shape[1])


def largest(x: Tensor, rows: Tensor, maxima: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest numbers of each of some ``rows``, ascending, and their ids, descending; of equal
    ones the lowest id first.

    ``maxima``: of these rows' tiles. On CUDA the order of equal ones is not defined.
    """
    if x.is_cuda or not count:
        top = select_rows(x, rows).topk(count, dim=-1)
        return top.values, top.indices
    listed = list_largest(x, rows, maxima, torch.full_like(rows, count), count)
    if listed.values.shape[1] < count or bool((listed.values[:, :count].amin(-1) == -torch.inf).any()):
        values, ids = select_rows(x, rows).sort(dim=-1, descending=True, stable=True)
        return values[:, :count], ids[:, :count]
    values, places = listed.values.sort(dim=-1, descending=True, stable=True)
    return values[:, :count], listed.ids.gather(1, places[:, :count])


def _floor(maxima: Numbers, counts: Ints, most: int) -> Numbers:
    """``[rows, 1]``: the ``counts``-th largest of the maxima, or a little less; LOWEST if there are fewer.

    Maxima of groups of tiles do as well as those of tiles, if there are twice as many as are wanted.
    """
    size = max(1, maxima.shape[1] // (2 * most))
    groups = maxima.shape[1] // size
    best = np.sort(maxima[:, : groups * size].reshape(-1, size, groups).max(axis=1), axis=1)
    last = counts[:, np.newaxis]
    found = np.take_along_axis(best, groups - last.clip(1, groups), axis=1)
    return np.where(last > groups, np.float32(LOWEST), np.maximum(found, np.float32(LOWEST)))


def _members(x: Numbers, row: Ints, tile: Ints) -> Numbers:
    """``[n, TILE]`` for n pairs of a row and a tile; -inf where a row has ended."""
    tiles = x.shape[1] // TILE
    if x.flags.c_contiguous and tiles * TILE == x.shape[1]:  # whole tiles: copied much faster
        members: Numbers = x.reshape(-1, TILE).take(row * tiles + tile, axis=0)
        return members
    members = np.full((len(row), TILE), -np.inf, dtype=np.float32)
    whole = tile < tiles
    body = x[:, : tiles * TILE].reshape(len(x), tiles, TILE)
    members[whole] = body[row[whole], tile[whole]]
    members[~whole, : x.shape[1] - tiles * TILE] = x[row[~whole], tiles * TILE :]
    return members


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Whole tiles ``[rows, tiles, TILE]``, and the numbers of the short one ``[rows, < TILE]``."""
    tiles = x.shape[1] // TILE
    return x[:, : tiles * TILE].unflatten(1, (tiles, TILE)), x[:, tiles * TILE :]
