"""The rows of one step that sample, and what they ask for: host arrays that the slot table makes.

The input stage reads them to build the sampler's input, the output stage to name what was sampled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from worker_svc.buffers.arrays import NO_IDS, Floats, HostArray, Ints
from worker_svc.sampling.inputs import Pairs


class PenaltyStart(NamedTuple):
    """A request with penalties takes a slot: the ids that it has then, each once."""

    slot: int
    ids: Ints
    counts: Ints  # how often each is among the outputs, of before a preemption


@dataclass(frozen=True, slots=True)
class PromptRows:
    """Rows of one prefill chunk whose logits give the log-probabilities of the prompt's next tokens."""

    incarnation: int
    start: int  # index in the prompt of the first of ``targets``
    rows: Ints  # among the rows of the step
    targets: Ints  # the tokens whose log-probabilities are wanted
    most: int  # how many of the most likely tokens are wanted in addition to each


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
    masked: Pairs[HostArray]  # ids that must not be drawn: bad ones, and end tokens below min_tokens
    allowed: Pairs[HostArray]  # of the rows that may draw some ids only
    biased: Pairs[HostArray]
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


def pairs_of(lists: Iterable[tuple[int, Ints]]) -> Pairs[HostArray]:
    """From a list of ids for each row that has one, ascending by row."""
    found = [(np.full(len(ids), row), ids) for row, ids in lists]
    if not found:
        return Pairs(NO_IDS, NO_IDS)
    return Pairs(np.concatenate([rows for rows, _ in found]), np.concatenate([ids for _, ids in found]))
