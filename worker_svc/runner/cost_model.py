"""The cost model of a simulated device: T3 and T4 as functions of the step and of the TP degree.

:class:`worker_svc.runner.simulated_runner.SimulatedRunner` asks it for each step, in the compute stage.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

PRESETS = Path(__file__).with_name("cost_models")


class Cost(BaseModel):
    """A sum of parts. Those ``over_t`` are divided by the TP degree, the others do not shrink."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fixed_ms: float = Field(0.0, ge=0)
    fixed_ms_over_t: float = Field(0.0, ge=0)
    row_us: float = Field(0.0, ge=0, description="per decoding or sampling row")
    row_us_over_t: float = Field(0.0, ge=0)
    prefill_token_us_over_t: float = Field(0.0, ge=0)

    def seconds(self, *, rows: int, prefill_tokens: int, tp: int) -> float:
        shared = self.fixed_ms_over_t * 1e3 + rows * self.row_us_over_t
        shared += prefill_tokens * self.prefill_token_us_over_t
        return (self.fixed_ms * 1e3 + rows * self.row_us + shared / tp) * 1e-6


class CostModel(BaseModel):
    """Forward (``t3``) and sampling of one model on one kind of device.

    ``t4``: rank 0 samples all rows, so no part of it shrinks with the TP degree; ``t4_parallel``: each rank
    samples its own, collectives included. A model that has only the first samples as long either way.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    source: str = Field(description="where the numbers come from")
    t3: Cost
    t4: Cost
    t4_parallel: Cost | None = None

    def sampling_seconds(self, *, rows: int, tp: int, parallel: bool) -> float:
        cost = self.t4_parallel if parallel and self.t4_parallel is not None else self.t4
        return cost.seconds(rows=rows, prefill_tokens=0, tp=tp)

    @classmethod
    def load(cls, name_or_path: str) -> CostModel:
        """A preset by its name, or a TOML file. Raises ValueError that says what is wrong with it."""
        preset = PRESETS / f"{name_or_path}.toml"
        path = preset if preset.exists() else Path(name_or_path)
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            known = ", ".join(sorted(file.stem for file in PRESETS.glob("*.toml")))
            raise ValueError(f"cost model {name_or_path!r}: no such file; presets: {known}") from None
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ValueError(f"cost model {path}: {error}") from None
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise ValueError(f"cost model {path}: {problems}") from None
