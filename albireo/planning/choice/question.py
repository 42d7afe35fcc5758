"""What ``albireo plan`` is asked: the model, the devices, the workload, the limits."""

from __future__ import annotations

from dataclasses import dataclass

from albireo.planning.choice.best import Limits
from albireo.planning.choice.serving import Serving
from albireo.planning.choice.split import FittingSplit, UnfitSplit, fitting, legal_splits
from albireo.planning.workload import Workload
from worker_svc.cost.device import Device
from worker_svc.cost.memory import kv_blocks
from worker_svc.cost.physical import PhysicalCost
from worker_svc.cost.tiers import described_tiers
from worker_svc.model.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Question:
    config: ModelConfig
    device: Device
    devices: int
    workload: Workload
    serving: Serving
    limits: Limits

    @property
    def setup(self) -> str:
        """The model, the devices and the mode, in one line."""
        mode = "synchronous" if self.serving.synchronous else "overlapped"
        return f"{self.serving.model_name} on {self.devices} x {self.device.name}, {mode}"

    def splits(self) -> tuple[list[FittingSplit], list[UnfitSplit]]:
        """Raises ValueError where the model fits at no TP degree."""

        def blocks(tp: int) -> int:
            PhysicalCost(self.device, self.config, tp)  # refuses a degree that the device does not allow
            serving = self.serving
            return kv_blocks(
                self.device,
                self.config,
                tp,
                max_seqs=serving.max_seqs,
                max_step_tokens=serving.max_num_batched_tokens,
            )

        def most(tp: int, blocks: int) -> int:
            cost = PhysicalCost(self.device, self.config, tp)
            return described_tiers(cost, cost.shape).most_tokens(blocks)

        splits = legal_splits(self.config, self.devices)
        return fitting(splits, blocks, most, self.serving.max_model_len)
