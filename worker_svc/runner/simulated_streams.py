"""What the layers of streamed slots read of the tiers of a simulated device.

A rank reads for all of them in the order of the layers, ahead of these as far as it has buffers. That takes
its share of a tier's rate: it comes behind the fetches that were begun before. Times are nanoseconds of the
Unix clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from albireo.contract.tiers import Frames, Offload, Span
from albireo.v1 import control_pb2 as control
from worker_svc.cost.tiers import DescribedTiers
from worker_svc.kv_tiers.limits import piece_buffers
from worker_svc.kv_tiers.streamed_frames import PIECE_BLOCKS, StreamedFrames
from worker_svc.runner.simulated_lane import SimulatedLane


@dataclass(frozen=True, slots=True)
class SimulatedReads:
    """What the spans of one step read."""

    begin: int  # when reading can begin, as far as the tiers are free
    layers: dict[int, int]  # how long it takes for each of them, in their order
    ahead: int  # so much of it fits into the buffers
    transfers: tuple[control.KvTransfer, ...]  # of each tier, without times
    failed: tuple[int, ...]  # incarnations whose frames do not hold what they should

    def between(self, begin: int, end: int) -> list[control.KvTransfer]:
        """What was read, once it is known when."""
        for transfer in self.transfers:
            transfer.begin, transfer.end = begin, end
        return list(self.transfers)


@dataclass(slots=True)
class _Slot:
    incarnation: int
    frames: StreamedFrames = field(default_factory=StreamedFrames)
    blocks: dict[int, int] = field(default_factory=dict)  # by tier
    failed: bool = False


class SimulatedStreams:
    """By slot. The input stage calls it."""

    def __init__(self, tiers: DescribedTiers, lanes: Sequence[SimulatedLane]) -> None:
        """``lanes``: in which the tiers are read."""
        self._lanes = lanes
        self._num_layers = tiers.layers
        self._part_bytes = tiers.part_bytes
        self._buffers = 1 + piece_buffers(PIECE_BLOCKS * self._part_bytes)  # one on the host
        self._slots: dict[int, _Slot] = {}

    def reset(self) -> None:
        self._slots.clear()

    def release(self, slots: Iterable[int]) -> None:
        if self._slots:
            for slot in slots:
                self._slots.pop(slot, None)

    def add(self, offload: Offload, incarnation: int, held: dict[int, bytes]) -> Frames | None:
        """``held``: keys by frame of the tier. Returns the frames that do not hold what they should; their
        slot is not computed any more."""
        slot = self._slots.setdefault(offload.slot, _Slot(incarnation))
        slot.frames.add(offload)
        slot.blocks[offload.tier] = slot.blocks.get(offload.tier, 0) + len(offload.frames)
        wanted = zip(offload.frames, offload.keys, strict=True)
        missing = tuple([frame for frame, key in wanted if held.get(frame) != key])
        slot.failed |= bool(missing)
        return Frames(offload.tier, missing) if missing else None

    def begin(self, spans: Sequence[Span], now: int) -> SimulatedReads:
        """Begins reading what the spans of a plan need, which was read ``now``."""
        layers, parts, pieces = dict[int, float](), dict[int, int](), 0
        for span in spans:
            slot, count = self._slots[span.slot], span.last_layer - span.first_layer
            pieces += count * len(slot.frames.pieces)
            for tier, blocks in slot.blocks.items():
                parts[tier] = parts.get(tier, 0) + count * blocks
                seconds = blocks * self._lanes[tier].block_ns / self._num_layers
                for layer in range(span.first_layer, span.last_layer):
                    layers[layer] = layers.get(layer, 0.0) + seconds
        begins = [self._lanes[tier].reserve(part / self._num_layers, now) for tier, part in parts.items()]
        slots = [self._slots[span.slot] for span in spans]
        return SimulatedReads(
            begin=max(begins),
            layers={layer: round(layers[layer]) for layer in sorted(layers)},
            ahead=round(sum(layers.values()) * self._buffers / pieces),
            transfers=tuple(
                control.KvTransfer(tier=self._lanes[tier].tier, bytes=part * self._part_bytes, streamed=True)
                for tier, part in parts.items()
            ),
            failed=tuple(slot.incarnation for slot in slots if slot.failed),
        )
