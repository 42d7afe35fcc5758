"""A rank as a whole: how it starts where it cannot, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid

import pytest

from albireo.models import TINY
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.cost.fixed import FixedCost, StepTimes
from worker_svc.runner.simulated_runner import SimulatedRunner
from worker_svc.service import WorkerService
from worker_svc.settings import WorkerSettings
from worker_svc.stages.output_stage import OutputStage


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
