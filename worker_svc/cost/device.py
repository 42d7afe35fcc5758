"""A device as a TOML file describes it: what its data sheet says, and how much of that a group attains.

The presets are ``devices/*.toml``. ``albireo calibrate`` writes a file of the same format for the machine at
hand. What calibration measures by TP degree is in tables with a ``tp`` each; a degree without one of its own
has the table of the largest degree below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from worker_svc.cost.toml import read_model

PRESETS = Path(__file__).with_name("devices")


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OfDegree(Table):
    """What holds from a TP degree on, up to the next one that has a table of its own."""

    tp: int = Field(default=1, ge=1)


class Link(Table):
    """What joins the devices of one group."""

    name: str
    gb_per_second: float = Field(gt=0, description="10^9 bytes per second of one device, in each direction")


class Tier(Table):
    """KV below the blocks of a device: memory of the host, a disk. Copies in one direction share its rate."""

    name: str = Field(pattern=r"^[a-z0-9._-]{1,32}$")
    gib: float = Field(gt=0, description="2^30 bytes of each rank")
    read_gb_per_second: float = Field(gt=0, description="10^9 bytes per second of one rank")
    write_gb_per_second: float = Field(gt=0)


class Efficiency(OfDegree):
    """Of the forward: shares of the data sheet's figures that a group attains, and fixed times."""

    weights: float = Field(gt=0, description="of the memory bandwidth, while weights are read")
    kv: float = Field(gt=0, description="of the memory bandwidth, while keys and values are read")
    compute: float = Field(gt=0, description="of the multiplications, in matrix products of many rows")
    attention: float = Field(gt=0, description="of the multiplications, in attention of prefill")
    overlap: float = Field(
        default=4.0, ge=1, description="p in (weights^p + multiplications^p)^(1/p); 1: their sum"
    )
    link: float = Field(default=1.0, gt=0, description="of the link, in all-reduces")
    all_reduce_us: float = Field(default=0.0, ge=0, description="latency of one all-reduce")
    layer_us: float = Field(default=0.0, ge=0, description="launch of one layer")
    step_us: float = Field(default=0.0, ge=0, description="launch of one step")


class RowCost(Table):
    """To sample rows of one kind."""

    fixed_us: float = Field(default=0.0, ge=0, description="once in a step with such rows: their launches")
    row_us: float = Field(default=0.0, ge=0)
    logit_ns: float = Field(default=0.0, ge=0, description="for each entry of the vocabulary")


class SamplingCost(OfDegree):
    """T4 of the rank that samples the rows, and of the exchange between ranks."""

    fixed_us: float = Field(default=0.0, ge=0)
    driver_us: float = Field(default=0.0, ge=0, description="more at t > 1: rank 0 gathers the logits")
    parallel_us: float = Field(default=0.0, ge=0, description="more at t > 1: exchange of logits and ids")
    link: float = Field(default=1.0, gt=0, description="exchange of logits, relative to all-reduces")
    greedy: RowCost
    drawn: RowCost
    penalized: RowCost


class HostPart(Table):
    """T1, T2 or T5 of one step."""

    fixed_us: float = Field(default=0.0, ge=0)
    row_us: float = Field(default=0.0, ge=0, description="each decoding row (T1, T2), each sampled row (T5)")
    prefill_token_us: float = Field(default=0.0, ge=0)


class HostTimes(OfDegree):
    t1: HostPart = HostPart()
    t2: HostPart = HostPart()
    t5: HostPart = HostPart()


class Variation(OfDegree):
    """How much T3 and T4 of like steps differ; spreads are standard deviations of the duration's logarithm.

    All other tables give means over this variation.
    """

    step_spread: float = Field(default=0.0, ge=0, le=2, description="of each step by itself")
    slow_spread: float = Field(default=0.0, ge=0, le=2, description="of what lasts for several steps")
    slow_seconds: float = Field(default=1.0, gt=0, description="until 1/e of a slow deviation is left")


STEADY = Variation()
"""Like steps take equally long."""


class Residual(Table):
    """How far a fitted term is from what was measured."""

    what: str
    measurements: int = Field(ge=1)
    median: float = Field(ge=0, description="of |predicted - measured| / measured")
    worst: float = Field(ge=0)
    noise: float | None = Field(default=None, ge=0, description="spread of like steps, as a share")


class Calibration(Table):
    """Where the efficiencies of a file were measured."""

    machine: str
    date: str
    model: str = ""
    setup: str = ""  # what else the measurements depend on: software, dtype, threads
    residuals: tuple[Residual, ...] = ()


D = TypeVar("D", bound=OfDegree)


def of_degree(tables: Sequence[D], tp: int) -> D:
    """The table of the largest degree that is not above ``tp``."""
    return max((table for table in tables if table.tp <= tp), key=lambda table: table.tp)


class Device(Table):
    """One kind of device, and the group's host."""

    name: str
    kind: Literal["cuda", "cpu"] = Field(default="cuda", description="the --device of ranks that run on it")
    dtype: Literal["bfloat16", "float32"] = Field(
        default="bfloat16", description="of what the tables are for"
    )
    source: str = Field(description="where the numbers come from")
    memory_gib: float = Field(gt=0, description="2^30 bytes that the driver reports")
    reserved_gib: float = Field(default=0.0, ge=0, description="taken by context, graphs and collectives")
    gb_per_second: float = Field(gt=0, description="memory bandwidth, 10^9 bytes per second")
    tflops: float = Field(gt=0, description="10^12 operations per second, dense, of the model's dtype")
    watts: float = Field(default=0.0, ge=0, description="at full load; 0: not known")
    idle_watts: float = Field(default=0.0, ge=0)
    link: Link | None = None
    tier: tuple[Tier, ...] = Field(default=(), description="the fastest first")
    efficiency: tuple[Efficiency, ...]
    sampling: tuple[SamplingCost, ...]
    host: tuple[HostTimes, ...] = (HostTimes(tp=1),)
    variation: tuple[Variation, ...] = (STEADY,)
    calibration: Calibration | None = None

    @property
    def dtype_bytes(self) -> int:
        """Of one weight, and of one number in the KV cache."""
        return {"bfloat16": 2, "float32": 4}[self.dtype]

    @field_validator("efficiency", "sampling", "host", "variation")
    @classmethod
    def _begins_at_one(cls, tables: tuple[OfDegree, ...]) -> tuple[OfDegree, ...]:
        degrees = [table.tp for table in tables]
        if 1 not in degrees or len(set(degrees)) < len(degrees):
            raise ValueError(f"needs one table with tp = 1 and one a further degree, not {degrees}")
        return tables

    @classmethod
    def load(cls, name_or_path: str) -> Device:
        """A preset by its name, or a TOML file. Raises ValueError that says what is wrong with it."""
        return read_model(cls, name_or_path, PRESETS, what="device")
