"""Builds the sampler's input for one step: one rank's share of the rows that sample.

:class:`worker_svc.batch.staging.Staging` calls it in the input stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from worker_svc.buffers.arrays import NO_IDS, Floats, HostArray, Ints
from worker_svc.sampling.graph_draws import graph_draws
from worker_svc.sampling.inputs import Draws, Pairs, Penalties, PenaltyStarts, SamplingInput
from worker_svc.sampling.layout import SampleLayout, SamplingPolicy
from worker_svc.sampling.random_numbers import uniforms
from worker_svc.sampling.ranking import MAX_NARROW_K
from worker_svc.sampling.rows import PenaltyStart, SampleRows

Flags = npt.NDArray[np.bool_]


class SamplingInputBuilder:
    """Selects what this rank needs of the rows that sample, and sorts the rows by how they are sampled."""

    def __init__(
        self, policy: SamplingPolicy, *, narrow: bool, native: bool, graph_rows: tuple[int, ...] = ()
    ) -> None:
        """``narrow``: the device answers at once whether a narrow draw was enough, as a CPU does. Rows are
        drawn bounded otherwise, or wide. ``native``: the native kernel draws those that it can.
        ``graph_rows``: buckets of the CUDA graphs that draw, if there are any."""
        self._policy = policy
        self._narrow = narrow
        self._native = native
        self._graph_rows = graph_rows

    def build(
        self, samples: SampleRows, starts: Sequence[PenaltyStart], layout: SampleLayout
    ) -> SamplingInput[HostArray]:
        """``starts``: of all requests with penalties that take a slot in this step."""
        params = self._sort(samples, starts, layout)
        graph = graph_draws(params, self._graph_rows) if self._graph_rows else None
        if graph is None:
            return params
        return replace(params, graph=graph, greedy=NO_IDS, plain=None, bounded=None)

    def _sort(
        self, samples: SampleRows, starts: Sequence[PenaltyStart], layout: SampleLayout
    ) -> SamplingInput[HostArray]:
        rows = slice(layout.first, layout.last)
        sampled = samples.temperature[rows] != 0
        greedy, plain = ~sampled, sampled & _unrestricted(samples, rows)
        few = sampled & ~plain & self._needs_few(samples, rows)
        wide = sampled & ~plain & ~few
        native = None
        if self._native:
            bounded = few & _bounded(samples, rows)
            native = _draws(samples, np.flatnonzero(greedy | plain | bounded), layout.first)
            greedy = plain = np.zeros_like(sampled)
            few &= ~bounded
        by_few = _draws(samples, np.flatnonzero(few), layout.first)
        biased = _span(samples.biased, layout)
        allowed = _part(samples.allowed, layout)
        return SamplingInput(
            graph=None,
            native=native,
            greedy=np.flatnonzero(greedy),
            plain=_draws(samples, np.flatnonzero(plain), layout.first),
            narrow=by_few if self._narrow else None,
            bounded=None if self._narrow else by_few,
            wide=_draws(samples, np.flatnonzero(wide), layout.first),
            biased=_part(samples.biased, layout),
            biases=_fp32(samples.biases[biased]),
            allowed=allowed,
            allowed_rows=np.unique(allowed.rows),
            masked=_part(samples.masked, layout),
            logprob_rows=np.flatnonzero(samples.logprobs[rows] >= 0),
            words=samples.words,
            penalties=self._penalties(samples, layout),
            starts=self._starts(starts),
        )

    def _needs_few(self, samples: SampleRows, rows: slice) -> Flags:
        """Rows whose largest logits decide: by top_k, else most likely by top_p or min_p."""
        top_k = samples.top_k[rows]
        cut = (samples.top_p[rows] < 1) | (samples.min_p[rows] > 0)
        found: Flags = (top_k <= MAX_NARROW_K) & ((top_k > 0) | (cut & self._narrow))
        return found

    def _penalties(self, samples: SampleRows, layout: SampleLayout) -> Penalties[HostArray] | None:
        entries = samples.penalized
        state_rows = self._policy.state_row(samples.slots[entries])
        kept = state_rows >= 0
        if not kept.any():
            return None
        mine = (layout.first <= entries) & (entries < layout.last)
        return Penalties(
            entries=entries[mine] - layout.first,
            state_rows=state_rows[mine],
            columns=samples.columns[mine],
            repetition=_fp32(samples.repetition[mine]),
            presence=_fp32(samples.presence[mine]),
            frequency=_fp32(samples.frequency[mine]),
            kept_entries=entries[kept],
            kept_state_rows=state_rows[kept],
            kept_columns=samples.columns[kept],
            most=int(samples.columns[kept].max()),
        )

    def _starts(self, starts: Sequence[PenaltyStart]) -> PenaltyStarts[HostArray] | None:
        state_rows = self._policy.state_row(np.array([start.slot for start in starts], dtype=np.int64))
        placed = zip(state_rows.tolist(), starts, strict=True)
        here = [(state_row, start) for state_row, start in placed if state_row >= 0]
        if not here:
            return None
        return PenaltyStarts(
            state_rows=np.concatenate([np.full(len(start.ids), state_row) for state_row, start in here]),
            columns=np.concatenate([np.arange(len(start.ids)) for _, start in here]),
            ids=np.concatenate([start.ids for _, start in here]),
            counts=np.concatenate([start.counts for _, start in here]),
        )


def _unrestricted(samples: SampleRows, rows: slice) -> Flags:
    """Rows with no control that cuts a distribution."""
    found: Flags = (
        (samples.top_k[rows] == 0)
        & (samples.top_p[rows] >= 1)
        & (samples.min_p[rows] == 0)
        & (samples.typical_p[rows] >= 1)
    )
    return found


def _bounded(samples: SampleRows, rows: slice) -> Flags:
    """Rows that the native kernel draws by their largest logits, of those that these decide."""
    found: Flags = (samples.top_k[rows] > 0) & (samples.typical_p[rows] >= 1)
    return found


def _draws(samples: SampleRows, entries: Ints, first: int) -> Draws[HostArray] | None:
    """``entries``: counted from ``first`` on, which is how the rows of the rank's logits are counted."""
    if not len(entries):
        return None
    chosen = entries + first
    top_k, top_p = samples.top_k[chosen], samples.top_p[chosen]
    min_p, typical_p = samples.min_p[chosen], samples.typical_p[chosen]
    return Draws(
        rows=entries,
        temperature=_fp32(samples.temperature[chosen]),
        top_k=top_k,
        top_p=_fp32(top_p),
        min_p=_fp32(min_p),
        typical_p=_fp32(typical_p),
        uniforms=uniforms(samples.seeds[chosen], samples.positions[chosen]),
        max_top_k=int(top_k.max(initial=0)),
        any_top_p=bool((top_p < 1).any()),
        any_min_p=bool((min_p > 0).any()),
        any_typical_p=bool((typical_p < 1).any()),
        any_unbounded=bool((top_k == 0).any()),
    )


def _part(pairs: Pairs[HostArray], layout: SampleLayout) -> Pairs[HostArray]:
    """The pairs of this rank's rows, which are counted from ``layout.first`` on."""
    span = _span(pairs, layout)
    return Pairs(pairs.rows[span] - layout.first, pairs.ids[span])


def _span(pairs: Pairs[HostArray], layout: SampleLayout) -> slice:
    return slice(*np.searchsorted(pairs.rows, [layout.first, layout.last]).tolist())


def _fp32(array: Floats) -> npt.NDArray[np.float32]:
    return array.astype(np.float32)
