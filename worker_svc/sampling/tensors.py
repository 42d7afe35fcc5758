"""The sampler's input on the device, and what the host knows of it beforehand."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

FAILED = -1
"""Stands for the id of a row whose logits are not numbers, or leave nothing to draw."""


@dataclass(frozen=True, slots=True)
class Draws:
    """Rows that draw: all tensors have one entry for each."""

    rows: Tensor  # among the rows of the logits
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    typical_p: Tensor
    uniforms: Tensor  # fp64 in [0, 1)
    max_top_k: int
    any_top_p: bool
    any_min_p: bool
    any_typical_p: bool
    any_unbounded: bool  # some have no top_k

    def select(self, entries: Tensor) -> Draws:
        """Some of the rows; what the host knows stays true of them."""
        return replace(
            self,
            rows=self.rows.index_select(0, entries),
            temperature=self.temperature.index_select(0, entries),
            top_k=self.top_k.index_select(0, entries),
            top_p=self.top_p.index_select(0, entries),
            min_p=self.min_p.index_select(0, entries),
            typical_p=self.typical_p.index_select(0, entries),
            uniforms=self.uniforms.index_select(0, entries),
        )

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class PenaltyStarts:
    """The ids of requests whose penalty state begins with this step, each once: all ``[n]`` int64."""

    rows: Tensor  # of the state
    columns: Tensor
    ids: Tensor
    counts: Tensor  # how often the id is among the outputs


@dataclass(frozen=True, slots=True)
class Penalties:
    """Penalties of the rows that this rank samples, and the step's rows whose state it keeps."""

    entries: Tensor  # [p], among the rows that this rank samples
    rows: Tensor  # [p], of the state
    columns: Tensor  # [p], of the state that are in use
    repetition: Tensor  # [p] fp32
    presence: Tensor
    frequency: Tensor
    kept_entries: Tensor  # [k], among all rows that sample
    kept_rows: Tensor  # [k], of the state
    kept_columns: Tensor  # [k], likewise; the sampled id takes the next one
    most: int  # columns in use, at most


@dataclass(frozen=True, slots=True)
class SamplingTensors:
    """Parameters of the rows that this rank samples."""

    greedy: Tensor  # rows with temperature 0
    plain: Draws  # rows with a temperature and nothing else that restricts a distribution
    narrow: Draws  # rows whose outcome most likely depends on few of the largest logits
    wide: Draws  # the others
    biased_rows: Tensor
    biased_ids: Tensor
    biases: Tensor  # fp32
    allowed_rows: Tensor  # rows that may draw some ids only
    allowed_entries: Tensor  # pairs (row, id)
    allowed_ids: Tensor
    masked_rows: Tensor
    masked_ids: Tensor
    logprob_rows: Tensor
    words: int  # see SampleRows.words
    penalties: Penalties | None
    starts: PenaltyStarts | None

    @property
    def max_logprobs(self) -> int:
        """Most top log-probabilities that any row of the step wants."""
        return (self.words - 2) // 2
