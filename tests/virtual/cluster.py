"""A scheduler, two gateways, a scripted group and random clients for some virtual time, from one seed."""

from __future__ import annotations

import asyncio
import random
import sys
from dataclasses import dataclass
from typing import cast

from albireo.checkpoint.fingerprint import fingerprint
from albireo.contract.plan import GroupShape, SamplingParams
from albireo.models import TINY
from albireo.v1 import control_pb2 as control
from albireo.virtual.clock import VirtualClock
from albireo.virtual.store import MemoryStore
from gateway.requests.validation import ValidRequest
from gateway.text.pretrained import without_torch
from tests.scheduler_svc.core.worker_model import VOCAB
from tests.virtual.gateway import Answer, VirtualGateway
from tests.virtual.group import ScriptedGroup
from tests.virtual.services import KEYS, RecordedKeyspace, scheduler

SHAPE = GroupShape(num_blocks=20, max_seqs=8, max_model_len=128)
MAX_QUEUE = 16
DRAIN_SECONDS = 60.0
"""Nothing arrives in the last so many seconds; all that runs ends in them."""


@dataclass
class Outcome:
    """What a run has left."""

    digest: str  # of all entries of all logs
    answers: list[Answer]
    load: control.Load
    waiting: bytes | None
    steps: int
    entries: int


class Clients:
    """Random requests at two gateways, drawn from a seed."""

    def __init__(
        self, clock: VirtualClock, gateways: list[VirtualGateway], draw: random.Random, *, rate: float = 0.4
    ) -> None:
        """``rate``: requests a second, bursts left out."""
        self._clock = clock
        self._rate = rate
        self._gateways = gateways
        self._draw = draw
        self._prefixes = [tuple(self._ids(40)) for _ in range(3)]
        self.answers: list[Answer] = []
        self.running = 0

    async def arrive(self, until: float) -> None:
        """Single requests now and then, and bursts that the queue cannot hold."""
        draw, loop = self._draw, self._clock.loop
        burst_at = 60.0
        while loop.time() < until:
            await asyncio.sleep(draw.expovariate(self._rate))
            self._begin()
            if loop.time() > burst_at:
                burst_at += draw.uniform(200, 400)
                for _ in range(30):
                    self._begin()

    def _begin(self) -> None:
        self.running += 1
        number = len(self.answers) + self.running
        self._clock.start_task(f"client {number}", self._request(f"r{number}-{self._draw.random():.6f}"))

    async def _request(self, request_id: str) -> None:
        draw = self._draw
        sampling = SamplingParams(max_tokens=draw.randint(1, 60), seed=draw.getrandbits(64))
        prompt = draw.choice([(), *self._prefixes])[: draw.choice([16, 32, 40])] + self._ids(
            draw.randint(1, 20)
        )
        request = ValidRequest(
            request_id,
            prompt,
            sampling,
            stops=(),
            priority=draw.choice([-1, 0, 0, 1]),
            n=draw.choice([1, 1, 1, 2]),
            tenant=draw.choice(["a", "b"]),
        )
        self.answers.append(
            await draw.choice(self._gateways).generate(
                request,
                timeout_s=draw.choice([600, 600, 600, 2]),
                cancel_after=draw.choice([None, None, None, None, draw.uniform(0, 5)]),
            )
        )
        self.running -= 1

    def _ids(self, count: int) -> tuple[int, ...]:
        return tuple(self._draw.randrange(1, VOCAB) for _ in range(count))


def run(seed: int, seconds: float) -> Outcome:
    """``seconds`` of virtual time."""
    draw, checkpoint = random.Random(seed), fingerprint(TINY)
    with VirtualClock() as clock:
        space = RecordedKeyspace(clock)
        group = ScriptedGroup(
            clock,
            lambda: MemoryStore(space, KEYS),
            KEYS,
            SHAPE,
            fingerprint=checkpoint,
            step_seconds=lambda: draw.uniform(0.05, 0.25),
        )
        gateways = [
            VirtualGateway(clock, space, KEYS, f"g{i}", fingerprint=checkpoint, max_queue=MAX_QUEUE)
            for i in range(2)
        ]
        clients = Clients(clock, gateways, draw)
        with scheduler(clock, space) as health:
            group.start()
            for gateway in gateways:
                clock.run(gateway.start())
            clock.sleep(2)
            assert health.serving
            assert all(gateway.alive for gateway in gateways)
            clock.start_task("arrivals", clients.arrive(seconds - DRAIN_SECONDS))
            clock.sleep(seconds - clock.now())
            load = control.Load.FromString(cast("bytes", space.get(KEYS.load)))
            assert clients.running == 0
            assert not any(len(gateway.router) for gateway in gateways)
        return Outcome(
            space.digest, clients.answers, load, space.get(KEYS.waiting), group.steps, space.entries
        )


if __name__ == "__main__":
    with without_torch():
        print(run(int(sys.argv[1]), float(sys.argv[2])).digest)
