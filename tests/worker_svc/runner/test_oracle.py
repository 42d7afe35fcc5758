"""Every family, every way of running it, at every TP degree: the ids and logits of transformers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.worker_svc.cases import SCENARIOS, Case
from tests.worker_svc.checkpoints import FAMILIES
from tests.worker_svc.oracle import Outcome, make_runner, run
from tests.worker_svc.ranks import Job, run_group
from worker_svc.collectives.tp_group import TPGroup

WAYS = [
    pytest.param(name, marks=pytest.mark.slow if name.endswith("-uncached") else ()) for name in SCENARIOS
]
"""Those without a prefix cache are left to `make test-slow`: the others run the same and more."""


@pytest.mark.parametrize("scenario", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_one_rank(cases: dict[str, Case], family: str, scenario: str) -> None:
    case, way = cases[family], SCENARIOS[scenario]
    group = TPGroup()
    case.check(scenario, run(make_runner(case.directory, group, way), group, way, case.asks))


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def outcomes(
    request: pytest.FixtureRequest, cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcome]:
    """By family, at one TP degree. One group runs them all: its start costs seconds.

    This way of running has everything in it: strangers, chunks, requests with and without a hit on the
    prefix cache, preemptions.
    """
    jobs = {name: Job(case.directory, SCENARIOS["scarce"], case.asks) for name, case in cases.items()}
    return run_group(request.param, jobs, Path(tmp_path_factory.mktemp(f"tp{request.param}")))


@pytest.mark.parametrize("family", FAMILIES)
def test_tensor_parallel(cases: dict[str, Case], outcomes: dict[str, Outcome], family: str) -> None:
    cases[family].check("scarce", outcomes[family])
