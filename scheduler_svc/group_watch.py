"""Signs of life of one group: its announcement, and the heartbeats of its ranks.

The fleet makes one for each group that it leads, and gives it what each look has found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from google.protobuf.message import DecodeError

from albireo.v1 import control_pb2 as control
from albireo.v1 import log_pb2 as log
from scheduler_svc.watched_time import WatchedTime

MISSES = 4
"""How many looks in a row, four a second, must find no announcement: where Redis stood still all leases ran
out, and the scheduler may have taken its own again up to a second before a group on a busy machine does."""

STAGES: dict[int, str] = {
    value: name.removeprefix("RANK_STAGE_").lower() for name, value in log.RankStage.items()
}

Cause = Literal["left", "announcement", "heartbeat", "stuck", "protocol"]
"""Why a group is closed; all but ``left`` are deaths."""


class Closing(NamedTuple):
    """A group is to be closed."""

    cause: Cause
    text: str

    @property
    def died(self) -> bool:
        return self.cause != "left"


@dataclass
class _Rank:
    """The last heartbeat of a rank."""

    beat: log.RankBeat = field(default_factory=log.RankBeat)
    at: float = 0.0  # watched time at which it was seen first


class GroupWatch:
    """Decides whether a group is dead, and why."""

    def __init__(self, ranks: int, watched: WatchedTime, bound: float) -> None:
        """``bound``: watched seconds for which a rank may show no heartbeat, and ranks may wait for each
        other in a collective."""
        self._watched = watched
        self._bound = bound
        self._missed = 0  # looks in a row without an announcement
        self._ranks = [_Rank(at=watched.now) for _ in range(ranks)]

    def look(self, announced: bool, beats: Sequence[bytes | None]) -> Closing | None:
        """What one look has found: whether the group is announced, and the key of each rank. Returns why it
        must be closed, or None."""
        self._missed = 0 if announced else self._missed + 1
        for rank, data in zip(self._ranks, beats, strict=True):
            beat = _beat(data)
            if beat is not None and beat.count != rank.beat.count:
                rank.beat, rank.at = beat, self._watched.now
        if self._missed >= MISSES:
            return Closing("announcement", "its announcement has expired")
        return self._silent() or self._stuck()

    def report(self) -> list[control.Rank]:
        """The ranks, for the load."""
        return [
            control.Rank(
                rank=number,
                stage=STAGES.get(rank.beat.stage, ""),
                step=rank.beat.step,
                seconds=rank.beat.seconds,
                beat_seconds=self._watched.now - rank.at,
            )
            for number, rank in enumerate(self._ranks)
        ]

    @property
    def beat_age(self) -> float:
        """Watched seconds since the last heartbeat of the rank whose heartbeat is the oldest."""
        return self._watched.now - min(rank.at for rank in self._ranks)

    def _silent(self) -> Closing | None:
        for number, rank in enumerate(self._ranks):
            age = self._watched.now - rank.at
            if age > self._bound:
                return Closing("heartbeat", f"rank {number} has shown no heartbeat for {age:.1f} s")
        return None

    def _stuck(self) -> Closing | None:
        """All ranks that do not wait for a plan wait for each other."""
        busy = [rank.beat for rank in self._ranks if rank.beat.stage != log.RANK_STAGE_WAITING]
        if len(self._ranks) < 2 or not busy:
            return None
        if any(beat.stage != log.RANK_STAGE_COLLECTIVE for beat in busy):
            return None
        seconds = min(self._watched.within(beat.seconds) for beat in busy)
        if seconds <= self._bound:
            return None
        step = max(beat.step for beat in busy)
        return Closing("stuck", f"its ranks have been in a collective of step {step} for {seconds:.1f} s")


def _beat(data: bytes | None) -> log.RankBeat | None:
    """None where it has expired or cannot be read."""
    try:
        return None if data is None else log.RankBeat.FromString(data)
    except DecodeError:
        return None
