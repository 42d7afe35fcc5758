"""Which steps a CUDA graph can draw, and what it does: padded rows in, an id for each out.

The input stage makes a graph's input with :func:`graph_draws`; :mod:`worker_svc.sampling.draw_graphs`
captures :func:`draw`. What depends on the step must be in arrays, whose shapes depend on the bucket alone.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from worker_svc.buffers.arrays import HostArray
from worker_svc.buffers.buckets import bucket_of
from worker_svc.buffers.scratch import ScratchBuffer
from worker_svc.sampling.draw import draw_bounded, draw_plain, take_largest
from worker_svc.sampling.inputs import Drawn, Draws, GraphDraws, SamplingInput
from worker_svc.sampling.ranking import MAX_NARROW_K
from worker_svc.sampling.tiles import tile_maxima


def graph_draws(params: SamplingInput[HostArray], sizes: tuple[int, ...]) -> GraphDraws[HostArray] | None:
    """The same rows, padded to one of ``sizes``. None for those that no graph draws: where single logits are
    changed, where log-probabilities are wanted, and where rows are drawn in more than one way or by all of
    their numbers."""
    edited = len(params.biased) or len(params.allowed) or len(params.masked) or params.penalties is not None
    if edited or params.words > 1 or params.narrow is not None or params.wide is not None:
        return None
    ways = {Drawn.PLAIN: params.plain, Drawn.BOUNDED: params.bounded}
    taken = [(drawn, draws) for drawn, draws in ways.items() if draws is not None]
    rows = len(params.greedy) + sum(len(draws) for _, draws in taken)
    if not rows or len(taken) > 1:
        return None
    if not taken:
        return padding_rows(Drawn.GREEDY, bucket_of(rows, sizes))
    [(drawn, draws)] = taken
    if draws.any_typical_p:
        return None
    padded = padding_rows(drawn, bucket_of(rows, sizes))
    padded.is_greedy[draws.rows] = 0
    for name in ("temperature", "top_k", "top_p", "min_p", "uniforms"):
        getattr(padded.draws, name)[draws.rows] = getattr(draws, name)
    return padded


def padding_rows(drawn: Drawn, rows: int) -> GraphDraws[HostArray]:
    """Rows that do not draw. Their other controls are such that a draw of them does no harm."""
    return GraphDraws(
        drawn=drawn,
        is_greedy=np.ones(rows, dtype=np.int64),
        draws=Draws(
            rows=np.arange(rows),
            temperature=np.ones(rows, dtype=np.float32),
            top_k=np.ones(rows, dtype=np.int64),
            top_p=np.ones(rows, dtype=np.float32),
            min_p=np.zeros(rows, dtype=np.float32),
            typical_p=np.ones(rows, dtype=np.float32),
            uniforms=np.zeros(rows),
            max_top_k=MAX_NARROW_K,
            any_top_p=True,
            any_min_p=True,
            any_typical_p=False,
            any_unbounded=False,
        ),
    )


def draw(logits: Tensor, params: GraphDraws[Tensor], scratch: ScratchBuffer) -> Tensor:
    """Ids ``[rows]``, or FAILED, of ``logits`` ``[rows, vocabulary]`` (fp32): what the same rows draw in
    :func:`worker_svc.sampling.sampler.sample`."""
    maxima = tile_maxima(logits)
    ids = take_largest(logits, maxima, params.draws.rows)
    if params.drawn is Drawn.GREEDY:
        return ids
    if params.drawn is Drawn.PLAIN:
        drawn = draw_plain(logits, maxima, params.draws, scratch)
    else:
        drawn = draw_bounded(logits, maxima, params.draws)
    return torch.where(params.is_greedy.bool(), ids, drawn)
