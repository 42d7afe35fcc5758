"""Rows of numbers in blocks of neighbours: one pass finds each block's largest, the rest looks at few blocks.

The k-th largest of the blocks' own largest numbers is a floor for the k-th largest number of the row, since
each of those k blocks has at least one that is no smaller; and only few blocks reach it. So selection costs
one pass over memory and a look at these blocks, where a sort, or a heap over the row, costs many.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 128

MOST_LISTED = 2048
"""Numbers of a row that are worth listing: more of them (where many are equal) are left to other means."""

CHUNK = {"cpu": 1 << 19, "cuda": 1 << 25}
"""Numbers that are worked on at a time where all of them matter: on a CPU they should stay in its cache."""

LOWEST = torch.finfo(torch.float32).min


class Listed(NamedTuple):
    """All numbers of each row from a floor on."""

    values: Tensor  # [rows, n], -inf where a row has fewer
    ids: Tensor  # [rows, n], ascending
    floor: Tensor  # [rows, 1]; inf for a row that has too many to list, of which none is


def block_maxima(x: Tensor) -> Tensor:
    """``[rows, blocks]`` of ``x`` ``[rows, n]``; the last block may be short."""
    body, tail = _split(x)
    if not tail.shape[1]:
        return body.amax(-1)
    return torch.cat([body.amax(-1), tail.amax(-1, keepdim=True)], dim=1)


def block_sums(x: Tensor) -> Tensor:
    """Likewise. For integers: their sums are the same in any order, on any number of threads."""
    body, tail = _split(x)
    return torch.cat([body.sum(-1), tail.sum(-1, keepdim=True)], dim=1)


def block_members(x: Tensor, block: Tensor) -> Tensor:
    """``[rows, BLOCK]``: the numbers of one block ``[rows, 1]`` each, zero where the row has ended."""
    ids = block * BLOCK + torch.arange(BLOCK, device=x.device)
    return x.gather(1, ids.clamp(max=x.shape[1] - 1)).masked_fill_(ids >= x.shape[1], 0)


def largest_ids(x: Tensor, maxima: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The largest number of each of ``rows``, and the lowest id that has it; NaN counts as largest."""
    best, block = maxima.index_select(0, rows).max(-1, keepdim=True)
    ids = (block * BLOCK + torch.arange(BLOCK, device=x.device)).clamp_(max=x.shape[1] - 1)
    # Clamped ids repeat the row's last number, which cannot come before itself.
    within = x[rows.unsqueeze(1), ids].argmax(-1, keepdim=True)
    return best.squeeze(1), ids.gather(1, within).squeeze(1)


def list_largest(x: Tensor, maxima: Tensor, rows: Tensor, counts: Tensor, most: int) -> Listed:
    """Of each of ``rows`` of ``x`` ``[all rows, n]`` at least the ``counts`` largest, if there are so many.

    ``most``: the largest count. CPU only: how many there are must be waited for.
    """
    maxima = maxima.index_select(0, rows)
    floor = _floor(maxima, counts, most)
    reaching = maxima >= floor
    many = reaching.sum(-1, keepdim=True) > MOST_LISTED // 2  # blocks, of a row of many equal numbers
    if bool(many.any()):
        floor.masked_fill_(many, torch.inf)
        reaching = maxima >= floor
    row, block = reaching.nonzero().unbind(1)
    members = _members(x, rows, row, block)
    found = _places(members >= floor.index_select(0, row))
    row, place = row.index_select(0, found // BLOCK), found % BLOCK
    listed = torch.bincount(row, minlength=len(rows))
    too_many = listed > MOST_LISTED
    if bool(too_many.any()):
        floor.masked_fill_(too_many.unsqueeze(1), torch.inf)
        fit = (~too_many.index_select(0, row)).nonzero().squeeze(1)
        row, place, found = row[fit], place[fit], found[fit]
        listed = torch.bincount(row, minlength=len(rows))
    column = torch.arange(len(row)) - (listed.cumsum(0) - listed).index_select(0, row)
    at, shape = (row, column), (len(rows), max(1, int(listed.max())))
    values = x.new_full(shape, -torch.inf).index_put_(at, members.view(-1).index_select(0, found))
    ids = block.index_select(0, found // BLOCK) * BLOCK + place
    last = torch.full(shape, x.shape[1] - 1, dtype=torch.int64)
    return Listed(values, last.index_put_(at, ids), floor)


def largest(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest numbers of each row and their ids, descending; of equal ones the lowest id first.

    On CUDA the order of equal ones is not defined.
    """
    if x.is_cuda or not count:
        top = x.topk(count, dim=-1)
        return top.values, top.indices
    rows = torch.arange(len(x))
    listed = list_largest(x, block_maxima(x), rows, torch.full_like(rows, count), count)
    if listed.values.shape[1] < count or bool((listed.values[:, :count].amin(-1) == -torch.inf).any()):
        values, ids = x.sort(dim=-1, descending=True, stable=True)
        return values[:, :count], ids[:, :count]
    values, places = listed.values.sort(dim=-1, descending=True, stable=True)
    return values[:, :count], listed.ids.gather(1, places[:, :count])


def _floor(maxima: Tensor, counts: Tensor, most: int) -> Tensor:
    """``[rows, 1]``: the ``counts``-th largest of the maxima, or a little less; LOWEST if there are fewer.

    Maxima of groups of blocks do as well as those of blocks, if there are twice as many as are wanted.
    """
    size = max(1, maxima.shape[1] // (2 * most))
    groups = maxima.shape[1] // size
    best = maxima[:, : groups * size].unflatten(1, (groups, size)).amax(-1)
    top = best.topk(min(most, groups), dim=-1).values
    last = counts.unsqueeze(1)
    found: Tensor = top.gather(1, last.clamp(1, top.shape[1]) - 1).clamp_(min=LOWEST)
    return found.masked_fill_(last > top.shape[1], LOWEST)


def _members(x: Tensor, rows: Tensor, row: Tensor, block: Tensor) -> Tensor:
    """``[n, BLOCK]`` for n pairs of an entry in ``rows`` and a block; -inf where a row has ended."""
    body, tail = _split(x)
    blocks = body.shape[1]
    if x.is_contiguous() and not tail.shape[1]:  # a block is a row of this: copied much faster
        return x.view(-1, BLOCK).index_select(0, rows.index_select(0, row) * blocks + block)
    short = (block == blocks).nonzero().squeeze(1)
    members = x.new_full((len(row), BLOCK), -torch.inf)
    if blocks:
        members.copy_(body[rows.index_select(0, row), block.clamp(max=blocks - 1)])
    if len(short):
        members.index_fill_(0, short, -torch.inf)
        ends = tail.index_select(0, rows.index_select(0, row.index_select(0, short)))
        members[:, : tail.shape[1]].index_copy_(0, short, ends)
    return members


def _places(found: Tensor) -> Tensor:
    """Where ``found`` ``[n, BLOCK]``, flattened, is true: words of eight first, for most have none."""
    words = found.view(torch.int64).view(-1).nonzero().squeeze(1)
    within = found.view(-1, 8).index_select(0, words).view(-1).nonzero().squeeze(1)
    return words.index_select(0, within // 8) * 8 + within % 8


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Whole blocks ``[rows, blocks, BLOCK]``, and the numbers of the short one ``[rows, < BLOCK]``."""
    blocks = x.shape[1] // BLOCK
    return x[:, : blocks * BLOCK].unflatten(1, (blocks, BLOCK)), x[:, blocks * BLOCK :]
