"""A cost model as explicit times: T3 and T4 of one model, from a TOML file such as those in ``step_times``.

:func:`worker_svc.cost.load.load_cost_model` makes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from worker_svc.cost.device import STEADY, Tier, Variation
from worker_svc.cost.interface import HostCost
from worker_svc.cost.toml import read_model
from worker_svc.cost.work import StepWork

PRESETS = Path(__file__).with_name("step_times")


class Cost(BaseModel):
    """A sum of parts. Those ``over_t`` are divided by the TP degree, the others do not shrink."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    fixed_ms: float = Field(0.0, ge=0)
    fixed_ms_over_t: float = Field(0.0, ge=0)
    row_us: float = Field(0.0, ge=0, description="per decoding or sampling row")
    row_us_over_t: float = Field(0.0, ge=0)
    prefill_token_us_over_t: float = Field(0.0, ge=0)

    def seconds(self, *, rows: int, prefill_tokens: int, tp: int) -> float:
        shared = self.fixed_ms_over_t * 1e3 + rows * self.row_us_over_t
        shared += prefill_tokens * self.prefill_token_us_over_t
        return (self.fixed_ms * 1e3 + rows * self.row_us + shared / tp) * 1e-6


class StepTimes(BaseModel):
    """Forward (``t3``) and sampling of one model on one kind of device.

    ``t4``: rank 0 samples all rows, so no part of it shrinks with the TP degree; ``t4_parallel``: each rank
    samples its own, collectives included. A model that has only the first samples as long either way.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    source: str = Field(description="where the numbers come from")
    t3: Cost
    t4: Cost
    t4_parallel: Cost | None = None
    tier: tuple[Tier, ...] = Field(default=(), description="of KV below the blocks, the fastest first")

    @classmethod
    def load(cls, name_or_path: str) -> StepTimes:
        """A preset by its name, or a TOML file. Raises ValueError that says what is wrong with it."""
        return read_model(cls, name_or_path, PRESETS, what="cost model")


@dataclass(frozen=True, slots=True)
class FixedCost:
    """:class:`worker_svc.cost.interface.CostModel` of explicit times; the host costs nothing."""

    times: StepTimes
    tp: int

    @property
    def name(self) -> str:
        return self.times.name

    @property
    def variation(self) -> Variation:
        return STEADY

    def forward_seconds(self, work: StepWork) -> float:
        cost, tp = self.times.t3, self.tp
        return sum(
            share * cost.seconds(rows=part.decodes, prefill_tokens=part.prefill, tp=tp)
            for share, part in work.parts()
            if part.rows
        )

    def sampling_seconds(self, work: StepWork, *, parallel: bool) -> float:
        if not work.samples:
            return 0.0
        shared = self.times.t4_parallel if parallel else None
        return (shared or self.times.t4).seconds(rows=work.samples, prefill_tokens=0, tp=self.tp)

    def host(self, work: StepWork) -> HostCost:
        return HostCost()
