"""What the slot table knows of streamed slots: their frames, and how far the rows under way have come."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from albireo.contract.tiers import Offload, Span
from worker_svc.batch.inputs import HiddenStates
from worker_svc.kv_tiers.streamed_frames import StreamedFrames


@dataclass(slots=True)
class StreamedSlot:
    """One of them."""

    frames: StreamedFrames = field(default_factory=StreamedFrames)
    start: int = 0  # of the rows under way
    count: int = 0
    next_layer: int = 0  # 0: no rows are under way
    states: HiddenStates = field(default_factory=HiddenStates)


class StreamedSlots:
    """By slot. Most plans have none: each call costs nothing then."""

    def __init__(self, num_layers: int) -> None:
        self._num_layers = num_layers
        self._slots: dict[int, StreamedSlot] = {}

    def __contains__(self, slot: int) -> bool:
        return slot in self._slots

    def __getitem__(self, slot: int) -> StreamedSlot:
        return self._slots[slot]

    def blocks(self, slot: int) -> int:
        """How many blocks of the slot are in frames."""
        return self._slots[slot].frames.blocks if slot in self._slots else 0

    def release(self, slots: Iterable[int]) -> None:
        if self._slots:
            for slot in slots:
                self._slots.pop(slot, None)

    def reset(self) -> None:
        self._slots.clear()

    def offload(self, offload: Offload) -> None:
        self._slots.setdefault(offload.slot, StreamedSlot()).frames.add(offload)

    def fault_of(self, span: Span, computed: int, known: int) -> str:
        """Why a span cannot be the next of its slot; empty where it can.

        ``computed``: tokens whose KV exists in all layers; ``known``: those of the admission.
        """
        if span.slot not in self._slots:
            return "it is not streamed"
        slot = self._slots[span.slot]
        if not span.first_layer < span.last_layer <= self._num_layers:
            return f"there are {self._num_layers} layers"
        if slot.next_layer:
            due = slot.start, slot.count, slot.next_layer
            if (span.start, span.count, span.first_layer) != due:
                return f"tokens, count and layer {due} are due"
        elif span.start != computed or span.first_layer:
            return f"layer 0 of token {computed} is due"
        if span.count < 1 or span.start + span.count > max(known, span.start + 1):
            return f"{known} tokens are known"
        return ""

    def advance(self, span: Span) -> bool:
        """Takes a span as run; returns whether its rows have all their layers."""
        slot, ended = self._slots[span.slot], span.last_layer == self._num_layers
        slot.start, slot.count = span.start, span.count
        slot.next_layer = 0 if ended else span.last_layer
        return ended
