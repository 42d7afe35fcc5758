"""Hidden states of steps with spans, and of rows under way between steps. The compute stage calls it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from worker_svc.batch.inputs import SpanInput
from worker_svc.model.attention import AttentionPlan, LayerPieces, StreamView
from worker_svc.model.kv_cache import LayerCache
from worker_svc.model.spans import OtherRows, SpanRows, run_with_spans
from worker_svc.model.transformer import Transformer


class SpanForward:
    """A streamed slot's rows go on from the hidden states that their last span has left."""

    def __init__(self, model: Transformer, last_token: Tensor) -> None:
        """``last_token``: ``[slots + 1]``, the token that each slot has sampled last."""
        self._model = model
        self._last_token = last_token

    def __call__(
        self,
        others: tuple[Tensor, Tensor, Tensor, AttentionPlan],
        spans: Sequence[SpanInput[Tensor]],
        pieces: Sequence[LayerPieces],
        caches: Iterable[LayerCache],
    ) -> Tensor:
        """``[n, hidden]`` behind the last layer: of the other rows, then of the spans that reach it.

        ``others``: ids, positions, KV rows and attention of the rows that run all layers. ``pieces``:
        parallel to ``spans``.
        """
        rows = [self._rows(span, own) for span, own in zip(spans, pieces, strict=True)]
        ids, positions, kv_rows, plan = others
        whole = OtherRows(self._model.embedding(ids), positions, kv_rows, plan)
        hidden, states = run_with_spans(self._model, whole, rows, caches)
        ended = [hidden]
        for span, state in zip(spans, states, strict=True):
            under_way = span.last_layer < len(self._model.blocks)
            span.states.x = state.clone() if under_way else None  # without the batch that it is a part of
            if not under_way:
                ended.append(state)
        return torch.cat(ended)

    def _rows(self, span: SpanInput[Tensor], pieces: LayerPieces) -> SpanRows:
        return SpanRows(
            layers=range(span.first_layer, span.last_layer),
            x=self._states(span),
            positions=span.positions,
            kv_rows=span.kv_rows,
            view=StreamView(0, len(span.positions), span.before, span.blocks, pieces),
        )

    def _states(self, span: SpanInput[Tensor]) -> Tensor:
        """``[rows, hidden]`` before the first layer of a span."""
        if span.first_layer:
            if span.states.x is None:
                raise RuntimeError(f"the rows of slot {span.slot} have not run layer {span.first_layer - 1}")
            return span.states.x
        ids = self._last_token[span.slot : span.slot + 1] if span.ids is None else span.ids
        return self._model.embedding(ids)
