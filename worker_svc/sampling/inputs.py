"""The sampler's input for one step and one rank: numpy arrays on the host, the same as tensors on the device.

:mod:`worker_svc.sampling.input_builder` makes it in the input stage, the sampler reads it in the compute
stage. Plain fields hold what the host knows beforehand, so that the sampler need not ask the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from torch import Tensor

from worker_svc.buffers.structs import A, Struct, float32, float64, int64


@dataclass(frozen=True, slots=True)
class Pairs(Struct[A]):
    """Ids that some rows single out, as pairs of a row and an id, ascending by row."""

    rows: Annotated[A, int64("pairs")]  # entries among the rows that sample
    ids: Annotated[A, int64("pairs")]

    def __len__(self) -> int:
        return len(self.ids)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Draws(Struct[A]):
    """Rows that draw at random, and their controls."""

    rows: Annotated[A, int64("draws")]  # among the rows of the logits
    temperature: Annotated[A, float32("draws")]
    top_k: Annotated[A, int64("draws")]
    top_p: Annotated[A, float32("draws")]
    min_p: Annotated[A, float32("draws")]
    typical_p: Annotated[A, float32("draws")]
    uniforms: Annotated[A, float64("draws")]  # in [0, 1)
    max_top_k: int
    any_top_p: bool
    any_min_p: bool
    any_typical_p: bool
    any_unbounded: bool  # some have no top_k

    def __len__(self) -> int:
        return len(self.rows)  # type: ignore[arg-type]


def select_draws(draws: Draws[Tensor], entries: Tensor) -> Draws[Tensor]:
    """Some of the rows; what the host knows stays true of them."""
    return draws.map_arrays(lambda array: array.index_select(0, entries))


class Drawn(Enum):
    """How all rows of a graph are drawn that are not greedy."""

    GREEDY = "greedy"  # there are none
    PLAIN = "plain"
    BOUNDED = "bounded"


@dataclass(frozen=True, slots=True)
class GraphDraws(Struct[A]):
    """All rows that a rank samples in a step, padded to a bucket: what a CUDA graph reads."""

    drawn: Drawn
    is_greedy: Annotated[A, int64("rows")]  # 1: the row has temperature 0, and its controls mean nothing
    draws: Draws[A]

    def __len__(self) -> int:
        return len(self.draws)


@dataclass(frozen=True, slots=True)
class PenaltyStarts(Struct[A]):
    """The ids of requests whose penalty state begins with this step, each once."""

    state_rows: Annotated[A, int64("ids")]  # where the penalty state of the slot lies on this rank
    columns: Annotated[A, int64("ids")]  # of the state
    ids: Annotated[A, int64("ids")]
    counts: Annotated[A, int64("ids")]  # how often the id is among the outputs


@dataclass(frozen=True, slots=True)
class Penalties(Struct[A]):
    """Penalties of the rows that this rank samples, and the step's rows whose state it keeps."""

    entries: Annotated[A, int64("sampled")]  # among the rows that this rank samples
    state_rows: Annotated[A, int64("sampled")]  # where the penalty state of the slots lies
    columns: Annotated[A, int64("sampled")]  # of the state that are in use
    repetition: Annotated[A, float32("sampled")]
    presence: Annotated[A, float32("sampled")]
    frequency: Annotated[A, float32("sampled")]
    kept_entries: Annotated[A, int64("kept")]  # among all rows that sample
    kept_state_rows: Annotated[A, int64("kept")]
    kept_columns: Annotated[A, int64("kept")]  # in use; the sampled id takes the next one
    most: int  # columns in use, at most


@dataclass(frozen=True, slots=True)
class SamplingInput(Struct[A]):
    """Parameters of the rows that this rank samples.

    Where a CUDA graph draws them all they are in ``graph``, and in nothing else.
    """

    graph: GraphDraws[A] | None
    native: Draws[A] | None  # rows that the native kernel draws, greedy ones among them
    greedy: Annotated[A, int64("greedy")]  # rows with temperature 0
    plain: Draws[A] | None  # rows with a temperature and nothing else that restricts a distribution
    narrow: Draws[A] | None  # rows whose outcome most likely depends on few of the largest logits
    bounded: Draws[A] | None  # rows whose top_k bounds it to few, on a device that is not waited for
    wide: Draws[A] | None  # the others
    biased: Pairs[A]
    biases: Annotated[A, float32("biased")]  # parallel to ``biased``
    allowed: Pairs[A]
    allowed_rows: Annotated[A, int64("allowed rows")]  # rows that may draw some ids only
    masked: Pairs[A]  # ids that must not be drawn
    logprob_rows: Annotated[A, int64("logprob rows")]
    words: int  # see SampleRows.words
    penalties: Penalties[A] | None
    starts: PenaltyStarts[A] | None

    @property
    def max_logprobs(self) -> int:
        """Most top log-probabilities that any row of the step wants."""
        return (self.words - 2) // 2
