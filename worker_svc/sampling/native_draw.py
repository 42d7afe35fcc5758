"""Draws by the native kernel, on CPUs: one call for all rows of a step instead of some sixty.

The sampler calls it. It draws what :mod:`worker_svc.sampling.draw` says, of the rows that
:class:`worker_svc.sampling.input_builder.SamplingInputBuilder` finds for it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from worker_svc.kernels.library import load
from worker_svc.sampling.draw import draw_wide
from worker_svc.sampling.inputs import Draws, select_draws
from worker_svc.sampling.tiles import tile_maxima

UNDONE = -2
"""Of a row in which too many numbers are equal; draw.h has the same number."""

SHORT = 1 << 20
"""Logits that are looked through in some 100 microseconds."""


@cache
def has_native_draws() -> bool:
    return load() is not None


def draw_native(logits: Tensor, draws: Draws[Tensor]) -> Tensor:
    """Ids ``[draws]``, or FAILED, of rows of ``logits`` ``[rows, n]`` (fp32). Rows with temperature 0 take
    the largest; those without ``top_k`` must have no other control."""
    ids = torch.empty(len(draws), dtype=torch.int64)
    _kernel(short=logits.numel() <= SHORT)(
        logits.data_ptr(),
        logits.stride(0),
        logits.shape[1],
        len(draws),
        draws.rows.data_ptr(),
        draws.temperature.data_ptr(),
        draws.top_k.data_ptr(),
        draws.top_p.data_ptr(),
        draws.min_p.data_ptr(),
        draws.uniforms.data_ptr(),
        ids.data_ptr(),
    )
    undone = (ids.numpy() == UNDONE).nonzero()[0]
    if len(undone):
        entries = torch.from_numpy(undone)
        ids.index_copy_(0, entries, draw_wide(logits, tile_maxima(logits), select_draws(draws, entries)))
    return ids


@cache
def _kernel(*, short: bool) -> Any:
    library = load()
    assert library is not None
    return library.function("draw", torch.float32, keeps_interpreter=short)
