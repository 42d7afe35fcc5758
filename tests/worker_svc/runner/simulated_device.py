"""A simulated device with two tiers, and plans that are written by hand."""

from __future__ import annotations

from typing import Any

from albireo.contract.plan import Admission, Chunk, Plan, SamplingParams
from albireo.contract.tiers import Fetch, Spill, TierShape
from worker_svc.cost.tiers import DescribedTiers
from worker_svc.runner.simulated_tiers import SimulatedTiers
from worker_svc.runner.tier_report import TierReport

MS = 1_000_000
LAYERS = 4
SIZE = LAYERS << 15  # so much that each layer comes alone
# A block takes 8 ms from the host and 40 ms from the disk; to write it half as long.
TIERS = DescribedTiers(
    (TierShape("host", 8, 0.008, 0.004), TierShape("disk", 64, 0.040, 0.020)), LAYERS, SIZE
)
HOST, DISK = 0, 1


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def spill(tier: int, frames: dict[int, int]) -> Spill:
    """Keys by frame."""
    return Spill(tier, tuple(range(len(frames))), tuple(frames), tuple(map(key, frames.values())))


def fetch(slot: int, tier: int, frames: dict[int, int]) -> Fetch:
    return Fetch(slot, tier, tuple(range(len(frames))), tuple(frames), tuple(map(key, frames.values())))


def admission(slot: int) -> Admission:
    return Admission(slot, 100 + slot, f"r{slot}", (1,) * 99, 0, 96, SamplingParams(8, 0))


def plan(*fetches: Fetch, **fields: Any) -> Plan:
    """Admits the slots of fetches; unless fields say otherwise, it has a chunk of each."""
    slots = sorted({one.slot for one in fetches})
    fields.setdefault("chunks", tuple(Chunk(slot, 96, 3) for slot in slots))
    return Plan(1, 1, fetches=fetches, admissions=tuple(map(admission, slots)), **fields)


class Device:
    """Tiers, and a clock that is where the last step ended."""

    def __init__(self, tiers: DescribedTiers = TIERS) -> None:
        self.tiers = SimulatedTiers(tiers)
        self.now = 0

    def step(self, plan: Plan, forward: int = 0, at: int | None = None, *, whole: bool = True) -> TierReport:
        """``forward``, ``at``: milliseconds that it computes, and when it begins."""
        step = self.tiers.begin(plan, self.now)
        begin = self.now if at is None else at * MS
        self.now, report = self.tiers.run(step, begin, forward * MS, whole=whole)
        return report or TierReport()


def filled() -> Device:
    """Frames 0 to 7 of the host, and 0 to 63 of the disk, hold the keys of the same number."""
    device = Device()
    numbers = {frame: frame for frame in range(8)}
    device.step(plan(spills=(spill(HOST, numbers), spill(DISK, {frame: frame for frame in range(64)}))))
    device.step(plan(), at=10_000)  # everything has been written
    return device
