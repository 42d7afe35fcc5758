"""A scheduler that publishes what the test wrote by hand, for a real rank, mostly on the simulated device."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from albireo.contract import codec, result_rows
from albireo.contract.keys import Keys
from albireo.contract.plan import Admission, Chunk, Grant, Plan, SamplingParams, blocks_for
from albireo.models import TINY
from albireo.store.connection import connect
from albireo.store.interface import EntryId, GroupOpening, Log
from albireo.store.redis_store import RedisStore
from albireo.v1 import log_pb2 as log
from tests.races.cluster import POLL_SECONDS
from worker_svc.sampling.random_numbers import random_bits

VOCAB = 384
LEASE = b"scripted"

Results = list[tuple[EntryId, log.StepResult]]


class Rank:
    """A rank as a process of its own, the only one of its group."""

    def __init__(
        self, url: str, directory: Path, keys: Keys, *, forward_ms: float, synchronous: bool, device: str
    ) -> None:
        cost = directory / "cost.toml"
        cost.write_text(
            f'name = "test"\nsource = "made up"\n[t3]\nfixed_ms = {forward_ms}\n[t4]\nfixed_ms = 0.2\n'
        )
        self._log = directory / f"{keys.model}.log"
        options = {
            "ALBIREO_REDIS_URL": url,
            "ALBIREO_MODEL_NAME": keys.model,
            "ALBIREO_SYNCHRONOUS": str(synchronous),
            "ALBIREO_WORKER_MODEL": str(TINY),
            "ALBIREO_WORKER_DEVICE": device,
            "ALBIREO_WORKER_COST_MODEL": str(cost),
            "ALBIREO_WORKER_MAX_SEQS": "8",
            "ALBIREO_WORKER_PORT": "0",
            "ALBIREO_WORKER_GROUP_TTL_SECONDS": "5",
            "RANK": "0",
            "WORLD_SIZE": "1",
        }
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "albireo.cli", "worker"],
                env={**os.environ, **options},
                stdout=output,
                stderr=output,
            )

    def wait_end(self, seconds: float = 10) -> str:
        """Waits until the rank has stopped by itself, with an error; returns what it logged."""
        assert self.process.wait(seconds) != 0
        return self._log.read_text()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


class FakeScheduler:
    """Holds the lease of one model with one group, opens epochs, and publishes plans in the order of the
    calls."""

    def __init__(self, url: str, keys: Keys) -> None:
        self._redis = connect(url)
        self._keys = keys
        self._store = RedisStore(self._redis, keys)
        self._lease = self._store.lease(keys.lease, LEASE, ttl=600)
        assert self._lease.acquire(), "another scheduler holds the lease"
        self.group = log.GroupInfo()
        self.epoch = 0
        self._step = 0

    @property
    def _plans(self) -> Log:
        return self._store.log(self._keys.plans(self.group.incarnation), keep=10_000)

    @property
    def _results(self) -> Log:
        return self._store.log(self._keys.results(self.group.incarnation))

    def wait_group(self, rank: Rank, seconds: float = 100) -> None:
        """Waits until the rank has registered."""
        deadline = time.monotonic() + seconds
        while not (groups := self._store.groups()):
            assert rank.process.poll() is None, "the rank did not start"
            assert time.monotonic() < deadline, "no group has registered"
            time.sleep(0.02)
        [data] = groups.values()
        assert data is not None
        self.group = log.GroupInfo.FromString(data)

    @property
    def opening(self) -> GroupOpening:
        return GroupOpening(self.epoch, self.group.incarnation, "g0")

    def open_epoch(self) -> int:
        """Opens the next epoch, and in it the group that was found."""
        self.epoch, _ = self._store.open_epoch(lease_value=LEASE)
        self._store.open_group(self.opening, notice=1, lease_value=LEASE)
        self._step = 0
        return self.epoch

    def close_group(self, reason: str) -> None:
        """Closes the logs of the group."""
        self._store.close_group(self.opening, reason, notice=2, lease_value=LEASE)

    def publish(self, *, skip: int = 0, **fields: Any) -> Plan:
        """The next plan. ``skip``: steps to leave out before it, which no scheduler does."""
        self._step += 1 + skip
        plan = Plan(self.epoch, self._step, **fields)
        self._plans.append(EntryId(plan.epoch, plan.step), codec.plan_to_bytes(plan))
        return plan

    def decode(self, steps: int, rows: int) -> None:
        """Publishes ``steps`` plans that change nothing."""
        for _ in range(steps):
            self.publish(num_decodes=rows)

    def results(self, seconds: float = 10) -> Results:
        """Results of this epoch up to that of the last plan."""
        deadline, due = time.monotonic() + seconds, EntryId(self.epoch, self._step)
        while EntryId.parse(self._results.last()) < due:
            assert time.monotonic() < deadline, f"no result of {due}"
            time.sleep(POLL_SECONDS)
        return [
            (EntryId.parse(raw_id), log.ResultEntry.FromString(data).result)
            for raw_id, data in self._results.read(f"{self.epoch}-0", 0)
        ]

    def order(self) -> list[EntryId]:
        """Ids of everything in the results log."""
        return [EntryId.parse(raw_id) for raw_id, _ in self._results.read("0-0", 0)]


@contextmanager
def scripted_rank(
    url: str,
    directory: Path,
    name: str,
    *,
    forward_ms: float = 1.0,
    synchronous: bool = False,
    device: str = "sim",
) -> Iterator[tuple[FakeScheduler, Rank]]:
    """A rank that serves a model of its own, and the scheduler that moves it. Not waited for."""
    keys = Keys(f"races-{name}")
    rank = Rank(url, directory, keys, forward_ms=forward_ms, synchronous=synchronous, device=device)
    try:
        yield FakeScheduler(url, keys), rank
    finally:
        rank.stop()


def admit(
    slot: int, incarnation: int, prompt: int, blocks: tuple[int, ...], *, outputs: int = 0, **sampling: Any
) -> dict[str, Any]:
    """Fields of a plan that lets one request in and prefills all of it; its seed is its incarnation."""
    params = SamplingParams(**{"max_tokens": 100, "seed": incarnation, "ignore_eos": True, **sampling})
    assert len(blocks) >= blocks_for(prompt)
    return {
        "admissions": (
            Admission(slot, incarnation, f"r{incarnation}", tuple(range(2, 2 + prompt)), outputs, 0, params),
        ),
        "grants": (Grant(slot, blocks),),
        "chunks": (Chunk(slot, 0, prompt),),
    }


def tokens(seed: int, first: int, count: int) -> list[int]:
    """What the simulated device makes of a seed: the tokens from position ``first`` on."""
    bits = random_bits(np.full(count, seed, dtype=np.uint64), np.arange(first, first + count))
    return [int(token) for token in bits % np.uint64(VOCAB)]


def rows_of(results: Results, incarnation: int) -> list[tuple[int, int]]:
    """Token and finish of each row of one incarnation."""
    return [
        (token, finish)
        for _, result in results
        for _, row, token, finish in zip(*result_rows.rows_of(result), strict=True)
        if row == incarnation
    ]
