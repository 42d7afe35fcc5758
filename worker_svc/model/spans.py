"""The forward of a step with spans: rows of streamed slots that run some of the layers.

In each layer they are part of the batch of the step's other rows, so that the weights are read once for all:
they join it at the first layer of their span and leave it behind the last. The compute stage calls it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, islice, pairwise

import torch
from torch import Tensor

from worker_svc.model.attention import AttentionPlan, StreamView
from worker_svc.model.kv_cache import LayerCache
from worker_svc.model.transformer import LayerRows, Transformer, run_layers


@dataclass(frozen=True, slots=True)
class SpanRows:
    """The rows of one span."""

    layers: range
    x: Tensor  # [rows, hidden], as the layer before the span has left it
    positions: Tensor  # [rows] int64
    kv_rows: Tensor  # [rows] int64
    view: StreamView  # its ``first`` is not looked at


@dataclass(frozen=True, slots=True)
class OtherRows:
    """The rows of the step that run all layers; there may be none."""

    x: Tensor  # [rows, hidden], embedded
    positions: Tensor
    kv_rows: Tensor
    plan: AttentionPlan


def run_with_spans(
    model: Transformer, others: OtherRows, spans: Sequence[SpanRows], caches: Iterable[LayerCache]
) -> tuple[Tensor, list[Tensor]]:
    """Hidden states of the other rows behind the last layer, and of each span behind its own last."""
    x, states = others.x, [span.x for span in spans]
    ends = {0, len(model.blocks)}.union(*((span.layers.start, span.layers.stop) for span in spans))
    layers = iter(zip(model.blocks, caches, strict=True))
    for first, last in pairwise(sorted(ends)):
        active = [number for number, span in enumerate(spans) if first in span.layers]
        parts = [x, *(states[number] for number in active)]
        some = islice(layers, last - first)
        if not any(map(len, parts)):
            deque(some, maxlen=0)  # whatever waits for these layers
            continue
        rows = _join(model, others, [spans[number] for number in active])
        found = run_layers(((block, cache, rows) for block, cache in some), torch.cat(parts))
        x, *found_states = found.split([len(part) for part in parts])
        for number, state in zip(active, found_states, strict=True):
            states[number] = state
    deque(layers, maxlen=0)  # what comes behind the last one
    return x, states


def _join(model: Transformer, others: OtherRows, spans: Sequence[SpanRows]) -> LayerRows:
    positions = torch.cat([others.positions, *(span.positions for span in spans)])
    kv_rows = torch.cat([others.kv_rows, *(span.kv_rows for span in spans)])
    firsts = accumulate((len(span.positions) for span in spans), initial=len(others.positions))
    views = tuple(replace(span.view, first=first) for span, first in zip(spans, firsts, strict=False))
    return LayerRows(model.rope.at(positions), kv_rows, replace(others.plan, streams=views))
