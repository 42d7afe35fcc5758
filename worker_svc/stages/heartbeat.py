"""The heartbeat of a rank: what it does, for the scheduler. The renewal thread calls it."""

from __future__ import annotations

import contextlib

from redis.exceptions import RedisError

from albireo.runtime.clock import Clock
from albireo.store.interface import Store
from albireo.v1 import log_pb2 as log
from worker_svc.collectives.interface import Ranks
from worker_svc.stages.step_watch import StepWatch

BEAT_TTL_SECONDS = 30.0
"""How long a beat can be read: well above the time after which the scheduler takes a silent rank for dead."""


class Heartbeat:
    """Announces what its rank does. Progress is what has changed from one beat to the next: counters that
    the compute stage advances anyway, so that no step spends time on it."""

    def __init__(
        self, store: Store, key: str, watch: StepWatch, group: Ranks, clock: Clock, *, asynchronous: bool
    ) -> None:
        """``asynchronous``: the host does not wait in a collective, it only launches it, as on CUDA."""
        self._store = store
        self._key = key
        self._watch = watch
        self._group = group
        self._clock = clock
        self._asynchronous = asynchronous and group.size > 1
        self._count = 0
        self._seen: tuple[int, ...] = ()
        self._since = 0.0

    def beat(self) -> None:
        """A store that does not answer costs this beat, and no second try."""
        self._count += 1
        with contextlib.suppress(RedisError):
            data = self.found().SerializeToString()
            self._store.announce(self._key, data, ttl=BEAT_TTL_SECONDS, retry=False)

    def found(self) -> log.RankBeat:
        """What the rank does now. ``seconds`` counts from the first call that found it so."""
        watch, group, stage = self._watch, self._group, self._stage()
        seen = stage, watch.begun, watch.ended, group.begun, group.ended
        now = self._clock.now()
        if seen != self._seen:
            self._seen, self._since = seen, now
        return log.RankBeat(count=self._count, stage=stage, step=watch.step, seconds=now - self._since)

    def _stage(self) -> log.RankStage:
        if self._watch.begun == self._watch.ended:
            return log.RANK_STAGE_WAITING
        if self._asynchronous or self._group.begun != self._group.ended:
            return log.RANK_STAGE_COLLECTIVE
        return log.RANK_STAGE_COMPUTING
