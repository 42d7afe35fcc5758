"""What a step found out about the tiers of KV. A runner fills it, the output stage writes it out."""

from __future__ import annotations

from dataclasses import dataclass

from albireo.contract.tiers import Contents, Frames, TierRead
from albireo.v1 import control_pb2 as control


@dataclass(frozen=True, slots=True)
class TierReport:
    """The fields of :class:`albireo.contract.plan.StepResult` and of ``StepTiming`` by the same names."""

    unfetched: tuple[int, ...] = ()  # incarnations: no row of theirs counts from this step on
    lost: tuple[Frames, ...] = ()
    read: tuple[TierRead, ...] = ()
    contents: tuple[Contents, ...] = ()
    contents_end: bool = False
    transfers: tuple[control.KvTransfer, ...] = ()
    kv_wait_ns: int = 0  # that layers of the step waited for KV
    stream_wait_ns: int = 0  # of these, for KV that layers of streamed slots read
