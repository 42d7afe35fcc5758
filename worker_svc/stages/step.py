"""A step on its way through the stages of a rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from albireo.contract.plan import Plan
from albireo.v1 import control_pb2 as control
from worker_svc.runner.interface import StepOutput


@dataclass(frozen=True, slots=True)
class StagedStep:
    """A step whose tensors are on the device, but for the ids of decoding rows."""

    plan: Plan
    batch: Any  # of the runner's own kind
    timing: control.StepTiming


@dataclass(frozen=True, slots=True)
class ComputedStep:
    """A step that has been launched."""

    plan: Plan
    output: StepOutput
    timing: control.StepTiming
