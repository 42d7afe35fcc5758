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
    """Keeps the hidden states of a streamed slot's rows until their next span."""

    def __init__(self, model: Transformer, last_token: Tensor) -> None:
        """``last_token``: ``[slots + 1]``, the token that each slot has sampled last."""
        self._model = model
        self._last_token = last_token
        self._states: dict[int, Tensor] = {}  # by slot: of the last layer that has run

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
            if span.last_layer == len(self._model.blocks):
                ended.append(state)
            else:
                self._states[span.slot] = state.clone()  # without the batch that it is a part of
        return torch.cat(ended)

    def _rows(self, span: SpanInput[Tensor], pieces: LayerPieces) -> SpanRows:
        count, kept = len(span.positions), self._states.pop(span.slot, None)
        return SpanRows(
            layers=range(span.first_layer, span.last_layer),
            # Those of layer 0 have none yet; what is kept is of a request that left the slot before its end.
            x=kept if kept is not None and span.first_layer else self._embedded(span),
            positions=span.positions,
            kv_rows=span.kv_rows,
            view=StreamView(0, count, span.before, span.blocks, pieces),
        )

    def _embedded(self, span: SpanInput[Tensor]) -> Tensor:
        ids = self._last_token[span.slot : span.slot + 1] if span.ids is None else span.ids
        return self._model.embedding(ids)
