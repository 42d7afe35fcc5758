"""What the request in each slot asks of the sampler. The slot table keeps it, in the input stage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from albireo.contract.plan import Admission, SamplingParams
from worker_svc.buffers.arrays import Floats, Ints
from worker_svc.sampling.rows import PenaltyStart, SampleRows, pairs_of

SMALLEST_TEMPERATURE = 1e-20
"""Logits divided by less could leave the range of fp32; at this one only the largest counts anyway."""


@dataclass(frozen=True, slots=True)
class _Lists:
    """The ids that one request names."""

    ends: Ints  # not before min_tokens
    bad: Ints
    allowed: Ints
    biased: Ints
    biases: Floats


class SlotControls:
    """Controls by slot. One thread applies plans, in the order of the log."""

    def __init__(self, slots: int, eos_ids: frozenset[int]) -> None:
        self._eos_ids = eos_ids
        self._seeds = np.zeros(slots, dtype=np.uint64)
        self._floats = np.zeros((4, slots))  # temperature, top_p, min_p, typical_p
        self._ints = np.zeros((3, slots), dtype=np.int64)  # top_k, logprobs, min_tokens
        self._penalties = np.zeros((3, slots))  # repetition, presence, frequency
        self._penalized = np.zeros(slots, dtype=bool)
        self._listed = np.zeros(slots, dtype=np.int64)  # ids in the penalty state, less the outputs so far
        self._lists: dict[int, _Lists] = {}

    def admit(self, admission: Admission) -> PenaltyStart | None:
        """A request takes a slot. Returns what its penalties start from, if it has any."""
        slot, sampling = admission.slot, admission.sampling
        self._seeds[slot] = sampling.seed
        temperature = sampling.temperature and max(sampling.temperature, SMALLEST_TEMPERATURE)
        self._floats[:, slot] = temperature, sampling.top_p, sampling.min_p, sampling.typical_p
        self._ints[:, slot] = sampling.top_k, sampling.logprobs, sampling.min_tokens
        self._lists.pop(slot, None)
        if lists := self._lists_of(sampling):
            self._lists[slot] = lists
        penalties = sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty
        self._penalties[:, slot] = penalties
        self._penalized[slot] = penalties != (1.0, 0.0, 0.0)
        if not self._penalized[slot]:
            return None
        tokens = np.array(admission.tokens, dtype=np.int64)
        ids, places = np.unique(tokens, return_inverse=True)
        counts = np.bincount(places[len(tokens) - admission.num_outputs :], minlength=len(ids))
        self._listed[slot] = len(ids) - admission.num_outputs
        return PenaltyStart(slot, ids, counts)

    def rows(self, rows: Ints, slots: Ints, incarnations: Ints, positions: Ints) -> SampleRows:
        """The rows of a step; all arguments are parallel."""
        temperature, top_p, min_p, typical_p = self._floats[:, slots]
        top_k, logprobs, min_tokens = self._ints[:, slots]
        penalized = np.flatnonzero(self._penalized[slots])
        repetition, presence, frequency = self._penalties[:, slots[penalized]]
        listed = (
            [(row, self._lists[slot]) for row, slot in enumerate(slots.tolist()) if slot in self._lists]
            if self._lists
            else []
        )
        early = positions < min_tokens
        masked = [
            (row, np.concatenate([lists.ends, lists.bad]) if early[row] else lists.bad)
            for row, lists in listed
        ]
        return SampleRows(
            rows=rows,
            slots=slots,
            incarnations=incarnations,
            positions=positions,
            seeds=self._seeds[slots],
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            typical_p=typical_p,
            logprobs=logprobs,
            masked=pairs_of(masked),
            allowed=pairs_of((row, lists.allowed) for row, lists in listed),
            biased=pairs_of((row, lists.biased) for row, lists in listed),
            biases=np.concatenate([np.zeros(0), *(lists.biases for _, lists in listed)]),
            penalized=penalized,
            repetition=repetition,
            presence=presence,
            frequency=frequency,
            columns=self._listed[slots[penalized]] + positions[penalized],
        )

    def _lists_of(self, sampling: SamplingParams) -> _Lists | None:
        ends: set[int] = set()
        if sampling.min_tokens:
            ends = {*sampling.stop_ids, *(() if sampling.ignore_eos else self._eos_ids)}
        if not (ends or sampling.bad_ids or sampling.allowed_ids or sampling.logit_bias):
            return None
        return _Lists(
            ends=_sorted_ids(ends),
            bad=_sorted_ids(sampling.bad_ids),
            allowed=_sorted_ids(sampling.allowed_ids),
            biased=np.array([token for token, _ in sampling.logit_bias], dtype=np.int64),
            biases=np.array([bias for _, bias in sampling.logit_bias], dtype=np.float64),
        )


def _sorted_ids(ids: Iterable[int]) -> Ints:
    return np.array(sorted(set(ids)), dtype=np.int64)
