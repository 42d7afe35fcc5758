"""One split, simulated: what it does in all agrees with its parts, whatever the arrivals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from albireo.planning.choice.best import Limits
from albireo.planning.choice.comparison import Job, compare, run_job
from albireo.planning.choice.device_time import UNUSED, WAITING
from albireo.planning.choice.outcome import Outcome
from albireo.planning.choice.question import Question
from albireo.planning.choice.serving import Serving
from albireo.planning.choice.split import FittingSplit, Split
from albireo.planning.result import RequestTimes, SimulationResult, StepTotals
from albireo.planning.workload import Workload, WorkloadRequest
from tests.albireo.planning.choice.models import write_model
from worker_svc.cost.device import Device
from worker_svc.cost.interface import CostModel
from worker_svc.cost.work import StepWork
from worker_svc.model.config import ModelConfig


def outcome(
    folder: Path, split: Split, workload: Workload, *, blocks: int = 2000, devices: int = 8
) -> Outcome:
    model = write_model(folder, "Qwen2.5-32B-Instruct")
    serving = Serving(model, "qwen", 64, 2048, 1024, 256)
    question = Question(
        ModelConfig.from_dir(model), Device.load("h100"), devices, workload, serving, Limits()
    )
    found = run_job(Job(FittingSplit(split, blocks), question))
    assert sum(found.terms.values()) == pytest.approx(devices / found.tokens_per_second)
    return found


def requests(
    count: int, every: float = 0.0, prompt: int = 64, outputs: int = 8
) -> tuple[WorkloadRequest, ...]:
    return tuple(WorkloadRequest(i * every, prompt, outputs) for i in range(count))


def test_two_groups_have_twice_the_throughput_of_one_with_half_of_the_load(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    one = outcome(tmp_path / "one", Split(4, 1), Workload("half", requests(24), 4))
    two = outcome(tmp_path, Split(4, 2), Workload("all", requests(48), 8))
    assert two.tokens_per_second == pytest.approx(2 * one.tokens_per_second)
    assert two.ttft == one.ttft
    assert UNUSED in one.terms
    assert UNUSED not in two.terms


def test_a_run_whose_requests_end_all_at_once_counts_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def simulate(
        workload: Workload, cost: CostModel, *, on_progress: Callable[[int, int], None], **_: Any
    ) -> SimulationResult:
        cost.forward_seconds(StepWork(decodes=10, context=100, drawn=10))
        for done in range(1, 11):
            on_progress(done, 10)
        times = [RequestTimes(0.0, first=1.0, ended=2.0, tokens=8) for _ in range(10)]
        return SimulationResult(times, StepTotals(), 2.0, 0, num_blocks=10, peak_blocks=5)

    monkeypatch.setattr("albireo.planning.simulation.run.simulate", simulate)
    found = outcome(tmp_path, Split(8, 1), Workload("at once", requests(10)))
    assert found.tokens_per_second == 40
    assert found.rows == 10


def test_in_an_open_loop_below_capacity_the_throughput_is_that_of_the_arrivals(tmp_path: Path) -> None:
    found = outcome(tmp_path, Split(4, 2), Workload("slow", requests(40, every=0.25)))
    assert found.tokens_per_second == pytest.approx(4 * 8, rel=0.1)
    assert found.terms[WAITING] > 0.5 * sum(found.terms.values())


def test_little_kv_memory_preempts_and_computes_again(tmp_path: Path) -> None:
    workload = Workload("long", requests(24, prompt=64, outputs=192), 8)
    found = outcome(tmp_path, Split(8, 1), workload, blocks=64)
    assert found.preemptions > 0
    assert found.recomputed > 0
    assert found.rows < 8
    assert found.kv_headroom < 0.1


def test_progress_counts_the_requests_of_all_splits(tmp_path: Path) -> None:
    model = write_model(tmp_path, "Qwen2.5-32B-Instruct")
    workload = Workload("all", requests(8), 2)
    serving = Serving(model, "qwen", 64, 2048, 1024, 256)
    question = Question(ModelConfig.from_dir(model), Device.load("h100"), 8, workload, serving, Limits())
    jobs = [Job(FittingSplit(split, 2000), question) for split in (Split(4, 2), Split(8, 1))]
    seen: list[tuple[int, int]] = []
    outcomes = compare(jobs, lambda done, total: seen.append((done, total)), processes=1)
    assert [found.split for found in outcomes] == [Split(4, 2), Split(8, 1)]
    assert seen == [(done, 12) for done in range(1, 13)]
