"""A group that is described and not there: its cost model, its KV blocks and its context.

``albireo simulate`` makes one of its options.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.contract.plan import BLOCK_SIZE
from albireo.runtime.kv_memory import KvMemory
from worker_svc.cost.fixed import FixedCost
from worker_svc.cost.interface import CostModel
from worker_svc.cost.load import load_cost_model
from worker_svc.cost.memory import kv_block_bytes, kv_blocks, useful_blocks
from worker_svc.cost.physical import PhysicalCost
from worker_svc.cost.shape import ModelShape
from worker_svc.cost.tiers import DescribedTiers, described_tiers
from worker_svc.model.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Group:
    """What :func:`albireo.planning.simulation.run.simulate` takes of a group."""

    cost: CostModel
    source: str  # of the cost model's numbers
    num_blocks: int
    max_model_len: int  # at most as many tokens as blocks and tiers hold, as on a real rank
    tiers: DescribedTiers


def described_group(
    config: ModelConfig,
    device: str,
    tp: int,
    *,
    max_seqs: int,
    max_model_len: int,
    max_step_tokens: int,
    kv_memory: str = "auto",
    kv_host_memory: str = "auto",
    kv_disk_size: str = "auto",
) -> Group:
    """``device``: a preset or a TOML file, of a device or of explicit step times. ``kv_memory``: of each
    rank, a size; auto: what a device has left, at most what is of use, as on a real rank. Of the tiers host
    and disk likewise: a size, none, or auto, which is what the file says.

    Raises ValueError in one line, that begins with the option's name where it is of one.
    """
    try:
        cost = load_cost_model(device, config, tp)
    except ValueError as error:
        raise ValueError(f"device: {error}") from None
    blocks = _num_blocks(cost, config, max_seqs, max_model_len, max_step_tokens, kv_memory)
    sizes = _size("host", "kv_host_memory", kv_host_memory) | _size("disk", "kv_disk_size", kv_disk_size)
    tiers = described_tiers(cost, _shape(cost, config), sizes)
    return Group(cost, _source(cost), blocks, min(max_model_len, tiers.most_tokens(blocks)), tiers)


def _size(tier: str, option: str, text: str) -> dict[str, int]:
    """Bytes by the tier's name; empty where the device's file says them."""
    if text == "none":
        return {tier: 0}
    try:
        asked = KvMemory.parse(text)
    except ValueError as error:
        raise ValueError(f"{option}: {error}, nor none") from None
    if asked.share is not None:
        raise ValueError(f"{option}: {text}; a simulated device takes a size, such as 8GiB, auto or none")
    return {} if asked.size is None else {tier: asked.size}


def _shape(cost: CostModel, config: ModelConfig) -> ModelShape:
    return cost.shape if isinstance(cost, PhysicalCost) else ModelShape(config, cost.tp)


def _source(cost: CostModel) -> str:
    if isinstance(cost, PhysicalCost):
        return cost.device.source
    return cost.times.source if isinstance(cost, FixedCost) else ""


def _num_blocks(
    cost: CostModel, config: ModelConfig, max_seqs: int, max_model_len: int, max_step_tokens: int, memory: str
) -> int:
    try:
        asked = KvMemory.parse(memory)
    except ValueError as error:
        raise ValueError(f"kv_memory: {error}") from None
    if asked.share is not None:
        raise ValueError(f"kv_memory: {memory}; a simulated device takes a size, such as 8GiB, or auto")
    if asked.size is not None:
        blocks = int(asked.size // (_shape(cost, config).kv_token_bytes * BLOCK_SIZE))
        if not blocks:
            raise ValueError(f"kv_memory: {memory} holds not even one block of {BLOCK_SIZE} tokens")
        if isinstance(cost, PhysicalCost):
            _check_room(cost, blocks, memory, max_seqs, max_step_tokens)
        return blocks
    useful = useful_blocks(max_seqs, max_model_len)
    if not isinstance(cost, PhysicalCost):
        return useful
    left = kv_blocks(cost.device, config, cost.tp, max_seqs=max_seqs, max_step_tokens=max_step_tokens)
    return min(left, useful)


def _check_room(cost: PhysicalCost, blocks: int, memory: str, max_seqs: int, max_step_tokens: int) -> None:
    """A real rank takes a size whatever its share of the GPU, but no more than is there. Raises
    ValueError."""
    device, shape = cost.device, cost.shape
    left = kv_blocks(
        device,
        shape.config,
        cost.tp,
        max_seqs=max_seqs,
        max_step_tokens=max_step_tokens,
        gpu_memory_share=1.0,
    )
    room = left * kv_block_bytes(shape)  # a size that is asked for is taken whole, without space for copies
    if blocks * BLOCK_SIZE * shape.kv_token_bytes > room:
        gib = room / 2**30
        raise ValueError(f"kv_memory: {memory}; weights and steps leave {gib:.1f} GiB on each {device.name}")
