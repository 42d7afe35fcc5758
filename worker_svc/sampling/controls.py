"""What each slot asks of the sampler, on the host, and the rows of one step that sample."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from albireo.contract.plan import Admission, SamplingParams
from worker_svc.buffers.arrays import Floats, Ints

NO_IDS: Ints = np.zeros(0, dtype=np.int64)
SMALLEST_TEMPERATURE = 1e-20
"""Logits divided by less could leave the range of fp32; at this one only the largest counts anyway."""


class Pairs(NamedTuple):
    """Ids that some rows single out, as pairs, ascending by row."""

    rows: Ints  # entries among the rows that sample
    ids: Ints

    @classmethod
    def of(cls, lists: Iterable[tuple[int, Ints]]) -> Pairs:
        """From a list of ids for each row that has one, ascending by row."""
        found = [(np.full(len(ids), row), ids) for row, ids in lists]
        if not found:
            return cls(NO_IDS, NO_IDS)
        return cls(np.concatenate([rows for rows, _ in found]), np.concatenate([ids for _, ids in found]))

    def part(self, first: int, last: int) -> Pairs:
        """Those of rows ``[first, last)``, which are counted from ``first`` on."""
        span = self.span(first, last)
        return Pairs(self.rows[span] - first, self.ids[span])

    def span(self, first: int, last: int) -> slice:
        return slice(*np.searchsorted(self.rows, [first, last]).tolist())


class PenaltyStart(NamedTuple):
    """A request with penalties takes a slot: the ids that it has then, each once."""

    slot: int
    ids: Ints
    counts: Ints  # how often each is among the outputs, of before a preemption


@dataclass(frozen=True, slots=True)
class SampleRows:
    """The rows that sample, one entry each in every array; ascending by owner where ranks share them."""

    rows: Ints  # among the rows of the step
    slots: Ints
    incarnations: Ints
    positions: Ints  # index of the token to draw among the request's outputs
    seeds: npt.NDArray[np.uint64]
    temperature: Floats
    top_k: Ints
    top_p: Floats
    min_p: Floats
    typical_p: Floats
    logprobs: Ints
    masked: Pairs  # ids that must not be drawn: bad ones, and end tokens below min_tokens
    allowed: Pairs  # of the rows that may draw some ids only
    biased: Pairs
    biases: Floats  # parallel to ``biased``
    penalized: Ints  # entries with any penalty; the arrays below are parallel to it
    repetition: Floats
    presence: Floats
    frequency: Floats
    columns: Ints  # ids that the penalty state lists for the request

    @property
    def words(self) -> int:
        """Numbers that a sampled row brings to the host: its id, and the log-probabilities it may want.

        The same on every rank.
        """
        most = int(self.logprobs.max(initial=-1))
        return 1 if most < 0 else 2 + 2 * most


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
            masked=Pairs.of(masked),
            allowed=Pairs.of((row, lists.allowed) for row, lists in listed),
            biased=Pairs.of((row, lists.biased) for row, lists in listed),
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
