"""The sampler's part of a step's input: from the host's arrays to tensors, one rank's share of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from worker_svc.buffers.arrays import Floats, Ints
from worker_svc.buffers.packing import Packing, Place, unpack
from worker_svc.sampling.controls import PenaltyStart, SampleRows
from worker_svc.sampling.draw import MAX_NARROW_K
from worker_svc.sampling.layout import SampleLayout, SamplingPolicy
from worker_svc.sampling.random_numbers import uniforms
from worker_svc.sampling.tensors import Draws, Penalties, PenaltyStarts, SamplingTensors


class SamplingPacker:
    """Packs what this rank needs of the rows that sample."""

    def __init__(self, policy: SamplingPolicy, *, narrow: bool) -> None:
        """``narrow``: the device answers at once whether a narrow draw was enough, as a CPU does."""
        self._policy = policy
        self._narrow = narrow

    def pack(
        self, samples: SampleRows, starts: Sequence[PenaltyStart], layout: SampleLayout, packing: Packing
    ) -> PackedSampling:
        rows = slice(layout.first, layout.last)
        sampled = samples.temperature[rows] != 0
        plain = sampled & _unrestricted(samples, rows)
        few = sampled & ~plain & self._needs_few(samples, rows)
        allowed = samples.allowed.part(layout.first, layout.last)
        masked = samples.masked.part(layout.first, layout.last)
        biased = samples.biased.part(layout.first, layout.last)
        return PackedSampling(
            greedy=packing.add(np.flatnonzero(~sampled)),
            plain=_pack_draws(samples, np.flatnonzero(plain), layout.first, packing),
            narrow=_pack_draws(samples, np.flatnonzero(few), layout.first, packing),
            wide=_pack_draws(samples, np.flatnonzero(sampled & ~plain & ~few), layout.first, packing),
            lists=tuple(
                packing.add(array)
                for array in (
                    *biased,
                    _fp32(samples.biases[samples.biased.span(layout.first, layout.last)]),
                    np.unique(allowed.rows),
                    *allowed,
                    *masked,
                    np.flatnonzero(samples.logprobs[rows] >= 0),
                )
            ),
            words=samples.words,
            penalties=self._pack_penalties(samples, layout, packing),
            starts=self._pack_starts(starts, packing),
        )

    def _needs_few(self, samples: SampleRows, rows: slice) -> npt.NDArray[np.bool_]:
        """Rows whose largest logits most likely decide: by top_k, else by top_p or min_p."""
        top_k = samples.top_k[rows]
        cut = (samples.top_p[rows] < 1) | (samples.min_p[rows] > 0)
        found: npt.NDArray[np.bool_] = (top_k <= MAX_NARROW_K) & ((top_k > 0) | cut) & self._narrow
        return found

    def _pack_penalties(
        self, samples: SampleRows, layout: SampleLayout, packing: Packing
    ) -> _PackedPenalties | None:
        entries = samples.penalized
        state_rows = self._policy.state_row(samples.slots[entries])
        kept = state_rows >= 0
        if not kept.any():
            return None
        mine = (layout.first <= entries) & (entries < layout.last)
        return _PackedPenalties(
            places=tuple(
                packing.add(array)
                for array in (
                    entries[mine] - layout.first,
                    state_rows[mine],
                    samples.columns[mine],
                    _fp32(samples.repetition[mine]),
                    _fp32(samples.presence[mine]),
                    _fp32(samples.frequency[mine]),
                    entries[kept],
                    state_rows[kept],
                    samples.columns[kept],
                )
            ),
            most=int(samples.columns[kept].max()),
        )

    def _pack_starts(self, starts: Sequence[PenaltyStart], packing: Packing) -> tuple[Place, ...] | None:
        rows = self._policy.state_row(np.array([start.slot for start in starts], dtype=np.int64))
        here = [(row, start) for row, start in zip(rows.tolist(), starts, strict=True) if row >= 0]
        if not here:
            return None
        arrays = (
            np.concatenate([np.full(len(start.ids), row) for row, start in here]),
            np.concatenate([np.arange(len(start.ids)) for _, start in here]),
            np.concatenate([start.ids for _, start in here]),
            np.concatenate([start.counts for _, start in here]),
        )
        return tuple(packing.add(array) for array in arrays)


@dataclass(frozen=True, slots=True)
class _PackedDraws:
    places: tuple[Place, ...]
    max_top_k: int
    any_top_p: bool
    any_min_p: bool
    any_typical_p: bool
    any_unbounded: bool

    def unpack(self, words: Tensor) -> Draws:
        rows, uniform, top_k, controls = (unpack(words, place) for place in self.places)
        temperature, top_p, min_p, typical_p = controls.unbind()
        return Draws(
            rows=rows,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            typical_p=typical_p,
            uniforms=uniform,
            max_top_k=self.max_top_k,
            any_top_p=self.any_top_p,
            any_min_p=self.any_min_p,
            any_typical_p=self.any_typical_p,
            any_unbounded=self.any_unbounded,
        )


@dataclass(frozen=True, slots=True)
class _PackedPenalties:
    places: tuple[Place, ...]
    most: int

    def unpack(self, words: Tensor) -> Penalties:
        entries, rows, columns, repetition, presence, frequency, *kept = (
            unpack(words, place) for place in self.places
        )
        kept_entries, kept_rows, kept_columns = kept
        return Penalties(
            entries=entries,
            rows=rows,
            columns=columns,
            repetition=repetition,
            presence=presence,
            frequency=frequency,
            kept_entries=kept_entries,
            kept_rows=kept_rows,
            kept_columns=kept_columns,
            most=self.most,
        )


@dataclass(frozen=True, slots=True)
class PackedSampling:
    """Where everything lies; what it becomes once the words are on the device."""

    greedy: Place
    plain: _PackedDraws
    narrow: _PackedDraws
    wide: _PackedDraws
    lists: tuple[Place, ...]
    words: int
    penalties: _PackedPenalties | None
    starts: tuple[Place, ...] | None

    def unpack(self, words: Tensor) -> SamplingTensors:
        biased_rows, biased_ids, biases, allowed_rows, allowed_entries, allowed_ids, *rest = (
            unpack(words, place) for place in self.lists
        )
        masked_rows, masked_ids, logprob_rows = rest
        return SamplingTensors(
            greedy=unpack(words, self.greedy),
            plain=self.plain.unpack(words),
            narrow=self.narrow.unpack(words),
            wide=self.wide.unpack(words),
            biased_rows=biased_rows,
            biased_ids=biased_ids,
            biases=biases,
            allowed_rows=allowed_rows,
            allowed_entries=allowed_entries,
            allowed_ids=allowed_ids,
            masked_rows=masked_rows,
            masked_ids=masked_ids,
            logprob_rows=logprob_rows,
            words=self.words,
            penalties=self.penalties.unpack(words) if self.penalties is not None else None,
            starts=PenaltyStarts(*(unpack(words, place) for place in self.starts))
            if self.starts is not None
            else None,
        )


def _unrestricted(samples: SampleRows, rows: slice) -> npt.NDArray[np.bool_]:
    """Rows with no control that cuts a distribution."""
    found: npt.NDArray[np.bool_] = (
        (samples.top_k[rows] == 0)
        & (samples.top_p[rows] >= 1)
        & (samples.min_p[rows] == 0)
        & (samples.typical_p[rows] >= 1)
    )
    return found


def _pack_draws(samples: SampleRows, entries: Ints, first: int, packing: Packing) -> _PackedDraws:
    """``entries``: counted from ``first`` on, which is how the rows of the rank's logits are counted."""
    chosen = entries + first
    top_k, top_p = samples.top_k[chosen], samples.top_p[chosen]
    min_p, typical_p = samples.min_p[chosen], samples.typical_p[chosen]
    arrays = (
        entries,
        uniforms(samples.seeds[chosen], samples.positions[chosen]),
        top_k,
        np.stack([samples.temperature[chosen], top_p, min_p, typical_p]).astype(np.float32),
    )
    return _PackedDraws(
        places=tuple(packing.add(array) for array in arrays),
        max_top_k=int(top_k.max(initial=0)),
        any_top_p=bool((top_p < 1).any()),
        any_min_p=bool((min_p > 0).any()),
        any_typical_p=bool((typical_p < 1).any()),
        any_unbounded=bool((top_k == 0).any()),
    )


def _fp32(array: Floats) -> npt.NDArray[np.float32]:
    return array.astype(np.float32)
