"""Paged attention in Triton: programs read the blocks of the cache where they are, and no mask.

Scores and sums are in fp32, in powers of two: a softmax over ``s`` is one over ``s * log2(e)`` to the base 2.
Called by :class:`worker_svc.kernels.triton_kernels.TritonKernels`. All tensors are contiguous; keys and
values are ``[blocks, 16, KV heads, head_dim]``. Tokens behind a context are never read.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.contract.plan import BLOCK_SIZE

BLOCK = tl.constexpr(BLOCK_SIZE)
MERGED = tl.constexpr(16)
"""Parts that are read at a time when they are merged."""


@triton.jit
def load_tile(keys, values, table, at, seen, kv, lane, inside, KV: tl.constexpr, DIM: tl.constexpr):
    """Keys ``[dim, tokens]`` and values ``[tokens, dim]`` of tokens ``at`` of a context, of those that are
    ``seen``; zeros of others. Offsets are int64, as ``table`` is: caches are large."""
    block = tl.load(table + at // BLOCK, mask=seen, other=0)
    where = ((block * BLOCK + at % BLOCK) * KV + kv) * DIM
    k_mask, v_mask = inside[:, None] & seen[None, :], seen[:, None] & inside[None, :]
    k = tl.load(keys + where[None, :] + lane[:, None], mask=k_mask, other=0.0)
    v = tl.load(values + where[:, None] + lane[None, :], mask=v_mask, other=0.0)
    return k, v


@triton.jit
def attend_to_tile(q, k, v, visible, scale, greatest, total, found):
    """One step of FlashAttention's online softmax (Dao et al. 2022, arXiv 2205.14135).

    ``q`` ``[rows, dim]``, ``k`` ``[dim, tokens]``, ``v`` ``[tokens, dim]``. A row that has seen no token yet
    must see one of this tile.
    """
    scores = tl.dot(q, k, input_precision="ieee") * scale
    scores = tl.where(visible, scores, float("-inf"))
    now = tl.maximum(greatest, tl.max(scores, 1))
    weights = tl.exp2(scores - now[:, None])
    fade = tl.exp2(greatest - now)
    found = tl.dot(weights.to(v.dtype), v, found * fade[:, None], input_precision="ieee")
    return now, total * fade + tl.sum(weights, 1), found


@triton.jit
def tiles_of_part(tiles, parts, LEAST: tl.constexpr):
    """How many tiles one part of a context has; of parts behind the last tile none is attended to."""
    return tl.maximum(tl.cdiv(tiles, parts), LEAST)


@triton.jit(do_not_specialize_on_alignment=["blocks", "starts", "positions"])
def attend_part(
    q,
    keys,
    values,
    blocks,
    starts,
    positions,
    found_parts,  # [rows, heads, parts, DIM] fp32
    weight_parts,  # [rows, heads, parts] fp32: the binary logarithm of the part's sum of powers
    out,
    scale,
    KV: tl.constexpr,
    GROUP: tl.constexpr,  # query heads of one KV head
    LINES: tl.constexpr,  # at least as many, and what a product takes
    DIM: tl.constexpr,
    LANES: tl.constexpr,
    TOKENS: tl.constexpr,
    LEAST: tl.constexpr,
):
    """Program (row, KV head, part): Flash-Decoding (Dao et al. 2023). A context of one part is done here."""
    row, kv, part, parts = tl.program_id(0), tl.program_id(1), tl.program_id(2), tl.num_programs(2)
    length = (tl.load(positions + row) + 1).to(tl.int32)
    tiles = tl.cdiv(length, TOKENS)
    share = tiles_of_part(tiles, parts, LEAST)
    first = part * share
    if first >= tiles:
        return
    table = blocks + tl.load(starts + row)
    line, lane, token = tl.arange(0, LINES), tl.arange(0, LANES), tl.arange(0, TOKENS)
    inside = lane < DIM
    head = row.to(tl.int64) * KV * GROUP + kv * GROUP + line
    own = (line < GROUP)[:, None] & inside[None, :]
    query = tl.load(q + head[:, None] * DIM + lane[None, :], mask=own, other=0.0)
    greatest = tl.full([LINES], float("-inf"), tl.float32)
    total = tl.zeros([LINES], tl.float32)
    found = tl.zeros([LINES, LANES], tl.float32)
    for tile in range(first, tl.minimum(first + share, tiles)):
        at = tile * TOKENS + token
        seen = at < length
        k, v = load_tile(keys, values, table, at, seen, kv, lane, inside, KV, DIM)
        greatest, total, found = attend_to_tile(query, k, v, seen[None, :], scale, greatest, total, found)
    found /= total[:, None]
    if share >= tiles:
        tl.store(out + head[:, None] * DIM + lane[None, :], found.to(out.dtype.element_ty), mask=own)
    else:
        where = head * parts + part
        tl.store(found_parts + where[:, None] * DIM + lane[None, :], found, mask=own)
        tl.store(weight_parts + where, greatest + tl.log2(total), mask=line < GROUP)


@triton.jit(do_not_specialize=["parts"], do_not_specialize_on_alignment=["positions"])
def merge_parts(
    positions,
    found_parts,
    weight_parts,
    out,
    parts,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    LANES: tl.constexpr,
    TOKENS: tl.constexpr,
    LEAST: tl.constexpr,
):
    """Program (row, head): the parts of :func:`attend_part`, where there are several."""
    row = tl.program_id(0)
    tiles = tl.cdiv((tl.load(positions + row) + 1).to(tl.int32), TOKENS)
    share = tiles_of_part(tiles, parts, LEAST)
    if share >= tiles:
        return
    head, lane = row.to(tl.int64) * HEADS + tl.program_id(1), tl.arange(0, LANES)
    inside = lane < DIM
    greatest = tl.full([1], float("-inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    found = tl.zeros([LANES], tl.float32)
    used = tl.cdiv(tiles, share)
    for first in range(0, used, MERGED):
        part = first + tl.arange(0, MERGED)
        where = head * parts + part
        logs = tl.load(weight_parts + where, mask=part < used, other=float("-inf"))
        mask = (part < used)[:, None] & inside[None, :]
        some = tl.load(found_parts + where[:, None] * DIM + lane[None, :], mask=mask, other=0.0)
        now = tl.maximum(greatest, tl.max(logs, 0))
        weights, fade = tl.exp2(logs - now), tl.exp2(greatest - now)
        found = found * fade + tl.sum(some * weights[:, None], 0)
        total = total * fade + tl.sum(weights, 0)
        greatest = now
    tl.store(out + head * DIM + lane, (found / total).to(out.dtype.element_ty), mask=inside)


@triton.jit
def chunk_of_tile(tile, firsts, chunks, GROUP: tl.constexpr, LINES: tl.constexpr):
    """The chunk of a tile, and which of the chunk's tiles it is. A chunk has the tiles from that of its first
    line on, one more for each chunk before it: enough for its lines, in whichever tile they begin."""
    low, high = 0, chunks
    while low < high:
        middle = (low + high) // 2
        if tl.load(firsts + middle).to(tl.int32) * GROUP // LINES + middle <= tile:
            low = middle + 1
        else:
            high = middle
    chunk = low - 1
    return chunk, tile - (tl.load(firsts + chunk).to(tl.int32) * GROUP // LINES + chunk)


@triton.jit(
    do_not_specialize=["chunks"], do_not_specialize_on_alignment=["blocks", "starts", "firsts", "positions"]
)
def attend_chunk(
    q,
    keys,
    values,
    blocks,
    starts,
    firsts,
    chunks,
    positions,
    out,
    scale,
    KV: tl.constexpr,
    GROUP: tl.constexpr,
    LINES: tl.constexpr,
    DIM: tl.constexpr,
    LANES: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Program (tile, KV head), as FlashAttention-2 (Dao 2023, arXiv 2307.08691). A line is a row of a chunk
    and one of the query heads that share the KV head, so that all of them read it once."""
    # The last rows of a chunk have the longest contexts: they begin first.
    chunk, own_tile = chunk_of_tile(tl.num_programs(0) - 1 - tl.program_id(0), firsts, chunks, GROUP, LINES)
    first, rows = tl.load(firsts + chunk).to(tl.int32), tl.load(firsts + chunk + 1).to(tl.int32)
    if first + own_tile * LINES // GROUP >= rows:
        return
    line = own_tile * LINES + tl.arange(0, LINES)
    kv, lane, token = tl.program_id(1), tl.arange(0, LANES), tl.arange(0, TOKENS)
    row, inside = first + line // GROUP, lane < DIM
    position = tl.load(positions + row, mask=row < rows, other=0).to(tl.int32)
    end = tl.max(position, 0) + 1
    table = blocks + tl.load(starts + chunk)
    head = row.to(tl.int64) * KV * GROUP + kv * GROUP + line % GROUP
    own = (row < rows)[:, None] & inside[None, :]
    query = tl.load(q + head[:, None] * DIM + lane[None, :], mask=own, other=0.0)
    greatest = tl.full([LINES], float("-inf"), tl.float32)
    total = tl.zeros([LINES], tl.float32)
    found = tl.zeros([LINES, LANES], tl.float32)
    for tile in range(0, tl.cdiv(end, TOKENS)):
        at = tile * TOKENS + token
        seen = at < end
        k, v = load_tile(keys, values, table, at, seen, kv, lane, inside, KV, DIM)
        visible = at[None, :] <= position[:, None]
        greatest, total, found = attend_to_tile(query, k, v, visible, scale, greatest, total, found)
    found /= total[:, None]
    tl.store(out + head[:, None] * DIM + lane[None, :], found.to(out.dtype.element_ty), mask=own)
