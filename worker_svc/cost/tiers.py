"""The tiers of KV of a group that is described, not there. The planner and simulated ranks ask for them.

On a real device each tier is measured when its group starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from albireo.contract.plan import BLOCK_SIZE
from albireo.contract.tiers import TierShape, most_blocks
from worker_svc.cost.device import Tier
from worker_svc.cost.fixed import FixedCost
from worker_svc.cost.interface import CostModel
from worker_svc.cost.physical import PhysicalCost
from worker_svc.cost.shape import ModelShape

MAX_FRAMES = 1 << 18
"""Of a described tier: four million tokens. The scheduler keeps a record of each frame."""
NO_SIZES: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class DescribedTiers:
    """What is below the blocks of one rank. All ranks of a group have the same."""

    shapes: tuple[TierShape, ...] = ()
    layers: int = 1  # of the model
    block_bytes: int = 0  # of one block on one rank

    @property
    def part_bytes(self) -> int:
        """Of one layer of a block, at least 1."""
        return max(1, self.block_bytes // self.layers)

    def most_tokens(self, num_blocks: int) -> int:
        """Of one request, with so many blocks on the device."""
        return most_blocks(num_blocks, (tier.frames for tier in self.shapes)) * BLOCK_SIZE


NO_TIERS = DescribedTiers()


def described_tiers(
    cost: CostModel, shape: ModelShape, sizes: Mapping[str, int] = NO_SIZES
) -> DescribedTiers:
    """The tiers that the file of a cost model names, the fastest first.

    ``sizes``: bytes of each rank, by the tier's name, where not as in the file; 0 leaves the tier out. Raises
    ValueError for a tier that the file names twice or not at all, and for one that holds not even one block.
    """
    tables = _tables(cost)
    names = [table.name for table in tables]
    if len(set(names)) < len(names):
        raise ValueError(f"{cost.name} has the tiers {names}, not all of which differ")
    if unknown := {name for name, size in sizes.items() if size} - set(names):
        raise ValueError(
            f"{cost.name} has no tier {', '.join(sorted(unknown))}: its file says no rates of it"
        )
    block_bytes = round(shape.kv_token_bytes * BLOCK_SIZE)
    shapes = []
    for table in tables:
        size = sizes.get(table.name, round(table.gib * 2**30))
        frames = size // block_bytes
        if size and not frames:
            raise ValueError(f"tier {table.name}: {size} bytes hold no block of {block_bytes} bytes")
        if frames:
            read, write = (
                block_bytes / (rate * 1e9) for rate in (table.read_gb_per_second, table.write_gb_per_second)
            )
            shapes.append(TierShape(table.name, min(frames, MAX_FRAMES), read, write))
    return DescribedTiers(tuple(shapes), shape.config.num_layers, block_bytes)


def _tables(cost: CostModel) -> tuple[Tier, ...]:
    if isinstance(cost, PhysicalCost):
        return cost.device.tier
    return cost.times.tier if isinstance(cost, FixedCost) else ()
