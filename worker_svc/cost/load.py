"""Makes a cost model of a name. Simulated ranks, the planner and benchmarks call it."""

from __future__ import annotations

from worker_svc.cost import device, fixed
from worker_svc.cost.device import Device
from worker_svc.cost.fixed import FixedCost, StepTimes
from worker_svc.cost.interface import CostModel
from worker_svc.cost.physical import PhysicalCost
from worker_svc.cost.toml import read_toml, validated
from worker_svc.model.config import ModelConfig

WHAT = "cost model"


def load_cost_model(
    name_or_path: str, config: ModelConfig, tp: int, *, dtype_bytes: int | None = None
) -> CostModel:
    """A device (``h100``), or explicit times (``paper-32b``): a preset by its name, or a TOML file.

    ``config`` and ``tp``: of the simulated group. ``dtype_bytes``: of one number, where that is not as in the
    device's file. Raises ValueError in one line, also for a degree that model or device does not allow.
    """
    path, raw = read_toml(name_or_path, fixed.PRESETS, device.PRESETS, what=WHAT)
    if "t3" in raw:
        return FixedCost(validated(StepTimes, raw, path, what=WHAT), tp)
    return PhysicalCost(validated(Device, raw, path, what=WHAT), config, tp, dtype_bytes=dtype_bytes)
