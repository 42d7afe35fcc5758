"""A rank as a whole: how it starts, registers its group, and ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import NoReturn

import pytest
from greenlet import GreenletExit

from albireo.contract import codec
from albireo.contract.plan import Admission, Chunk, Grant, Plan, SamplingParams
from albireo.models import TINY
from albireo.store.interface import LAST_STEP, EntryId, Fenced
from albireo.v1 import log_pb2 as log
from albireo.virtual.clock import VirtualClock
from tests.worker_svc.stages.opened import KEYS, OpenedGroup
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.cost.fixed import FixedCost, StepTimes
from worker_svc.runner.simulated_runner import SimulatedRunner
from worker_svc.service import WorkerService
from worker_svc.settings import WorkerSettings
from worker_svc.stages.output_stage import OutputStage

INCARNATION = uuid.UUID(int=1)
GROUP = INCARNATION.hex
STEP_SECONDS = 1.0
SLOW = FixedCost(
    StepTimes.model_validate({"name": "t", "source": "t", "t3": {"fixed_ms": 1000}, "t4": {}}), 1
)


class Scene:
    """A rank on a simulated device with slow steps, and its scheduler, in virtual time."""

    def __init__(self, clock: VirtualClock, *, synchronous: bool) -> None:
        self.clock = clock
        self.group = OpenedGroup(clock, GROUP)
        self.stop = clock.event()
        self.raised: list[BaseException] = []
        settings = WorkerSettings.model_validate(
            {
                "model": TINY,
                "model_name": KEYS.model,
                "device": "sim",
                "synchronous": synchronous,
                "group": "a",
            }
        )
        runner = SimulatedRunner(
            TINY, SLOW, rank=0, kv_memory=4 << 20, max_seqs=4, max_model_len=256, clock=clock
        )
        self._service = WorkerService(
            settings,
            TPGroup(),
            runner,
            "fingerprint",
            None,
            self.stop,
            incarnation=INCARNATION,
            clock=clock,
            open_store=self.group.open_store,
            abort=self._abort,
        )
        self.rank = clock.start("rank", self._run)

    def _run(self) -> None:
        try:
            self._service.run()
        except Fenced as error:
            self.raised.append(error)

    def _abort(self) -> NoReturn:
        error = sys.exception()
        assert error is not None
        self.raised.append(error)
        raise GreenletExit  # ends this actor alone

    def publish(self, steps: int) -> None:
        """Plans of one request that decodes."""
        plans = self.group.store.log(KEYS.plans(GROUP), keep=100)
        sampling = SamplingParams(max_tokens=100, seed=1, ignore_eos=True)
        first = Plan(
            1,
            1,
            admissions=(Admission(0, 1, "r", (5,) * 5, 0, 0, sampling),),
            grants=(Grant(0, (0, 1)),),
            chunks=(Chunk(0, 0, 5),),
        )
        for plan in (first, *(Plan(1, step, num_decodes=1) for step in range(2, steps + 1))):
            plans.append(EntryId(plan.epoch, plan.step), codec.plan_to_bytes(plan))

    def results(self) -> list[int]:
        """Steps whose results are in the log."""
        entries = self.group.store.log(KEYS.results(GROUP)).read("0-0", 0)
        return [EntryId.parse(raw_id).step for raw_id, _ in entries if EntryId.parse(raw_id).step]

    def announced(self) -> log.GroupInfo | None:
        """What is registered of the group."""
        data = self.group.store.groups().get(GROUP)
        return None if data is None else log.GroupInfo.FromString(data)


@pytest.fixture(params=[False, True], ids=["overlapped", "synchronous"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with VirtualClock() as clock:
        yield Scene(clock, synchronous=request.param)


def test_a_group_registers_with_its_wish_and_its_speed(scene: Scene) -> None:
    scene.clock.sleep(1)
    info = scene.announced()
    assert info is not None
    assert (info.incarnation, info.name, info.tp, info.fingerprint) == (GROUP, "a", 1, "fingerprint")
    assert info.step_seconds == pytest.approx(STEP_SECONDS)
    [beat] = scene.group.store.get([KEYS.rank(GROUP, 0)])
    assert log.RankBeat.FromString(beat or b"").count > 0


def test_a_rank_that_is_asked_to_stop_finishes_what_is_staged_and_leaves(scene: Scene) -> None:
    scene.publish(20)
    scene.clock.sleep(STEP_SECONDS / 2)
    scene.stop.set()
    scene.clock.sleep(STEP_SECONDS / 4)
    assert GROUP in scene.group.store.groups()  # not before its last result
    scene.rank.join(20)
    assert not scene.rank.is_alive()
    done = scene.results()
    assert done == list(range(1, len(done) + 1))
    assert 1 <= len(done) < 6
    assert GROUP not in scene.group.store.groups()
    assert scene.group.store.get([KEYS.group(GROUP)]) == [None]
    assert scene.raised == []


def test_an_idle_rank_leaves_at_once(scene: Scene) -> None:
    scene.clock.sleep(1)
    scene.stop.set()
    scene.rank.join(1)
    assert not scene.rank.is_alive()
    assert GROUP not in scene.group.store.groups()


def test_a_rank_whose_group_is_closed_ends_in_the_middle_of_a_step(scene: Scene) -> None:
    scene.publish(20)
    scene.clock.sleep(3.5 * STEP_SECONDS)
    scene.group.close("rank 1 is stopped")
    scene.clock.sleep(0.5)
    assert [str(error) for error in scene.raised[:1]] == [
        "the scheduler has closed this group: rank 1 is stopped"
    ]
    assert scene.results() == [1, 2, 3, LAST_STEP]


def test_a_port_past_the_last_is_named_with_its_setting() -> None:
    environment = {**os.environ, "RANK": "2", "LOCAL_RANK": "2", "ALBIREO_WORKER_METRICS_PORT": "65534"}
    command = [sys.executable, "-m", "albireo.cli", "worker", "--model", str(TINY), "--device", "sim"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "worker-2: ALBIREO_WORKER_METRICS_PORT: 65534 and the rank 2" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_output_stage_is_closed_by_its_thread_before_the_rank_ends(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    close = OutputStage.close

    def noted(stage: OutputStage) -> None:
        close(stage)
        closed.append(threading.current_thread().name)

    monkeypatch.setattr(OutputStage, "close", noted)
    settings = WorkerSettings.model_validate({"model": TINY, "redis_url": redis_url, "device": "sim"})
    runner = SimulatedRunner(
        TINY,
        FixedCost(StepTimes.load("fast-5ms"), 1),
        rank=0,
        kv_memory=4 << 20,
        max_seqs=4,
        max_model_len=256,
    )
    stop, interval = threading.Event(), sys.getswitchinterval()
    timer = threading.Timer(0.5, stop.set)
    timer.start()
    WorkerService(settings, TPGroup(), runner, "", None, stop, incarnation=uuid.uuid4()).run()
    timer.join()
    sys.setswitchinterval(interval)
    assert closed == ["output"]
