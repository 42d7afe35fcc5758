"""Checks of torch, on the one that is installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from albireo.tools.doctor.finding import Finding
from albireo.tools.doctor.torch_checks import check_torch
from albireo.tools.doctor.two_ranks import check_two_ranks
from worker_svc.settings import WorkerSettings


def found(tp: int = 1, **options: object) -> dict[str, Finding]:
    settings = WorkerSettings.model_validate({"model": Path("m"), "dtype": "float32", **options})
    return {finding.check: finding for finding in check_torch(settings, tp)}


def test_on_a_cpu_it_is_well() -> None:
    checks = found()
    assert {finding.level for finding in checks.values()} == {"ok"}
    assert list(checks) == ["torch", "cpu threads", "cpu types", "gloo"]
    assert torch.__version__ in checks["torch"].found


def test_more_threads_than_cores_are_a_warning() -> None:
    cores = len(os.sched_getaffinity(0))
    assert found(threads=cores + 1)["cpu threads"].level == "warning"
    assert found(threads=cores)["cpu threads"].level == "ok"
    crowded = found(tp=cores + 1)["cpu threads"]
    assert crowded.level == "warning"
    assert crowded.found.startswith(f"{cores} cores for {cores + 1} rank")


def test_a_simulated_device_asks_nothing_of_the_cpu() -> None:
    assert list(found(device="sim")) == ["torch", "gloo"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_a_failure() -> None:
    checks = found(device="cuda", tp=2)
    assert checks["gpus"].level == "failure"
    assert "none: " in checks["gpus"].found


def test_ranks_that_cannot_meet_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nosuch0")
    finding = check_two_ranks()
    assert finding.level == "failure"
    assert "GLOO_SOCKET_IFNAME" in finding.advice
