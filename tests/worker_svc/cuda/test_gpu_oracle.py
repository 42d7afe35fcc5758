"""The oracle on a CUDA device, and what only a device with streams of its own can get wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.worker_svc.cases import GREEDY, SCENARIOS, Case
from tests.worker_svc.checkpoints import FAMILIES
from tests.worker_svc.cuda.scene import amount
from tests.worker_svc.oracle import Scenario, make_runner, run
from tests.worker_svc.pipeline import in_turn, overlapped
from worker_svc.collectives.tp_group import TPGroup


# "scarce" has what the others have: chunks, cached prefixes, a crowd.
@pytest.mark.parametrize(
    "scenario",
    [name if name == "scarce" else pytest.param(name, marks=pytest.mark.slow) for name in SCENARIOS],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_fp32_oracle(cases: dict[str, Case], cuda: torch.device, family: str, scenario: str) -> None:
    case, way, group = cases[family], SCENARIOS[scenario], TPGroup()
    case.check(scenario, run(make_runner(case.directory, group, way, device=cuda), group, way, case.asks))


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_is_near_fp32(cases: dict[str, Case], cuda: torch.device, family: str) -> None:
    case, way, group = cases[family], Scenario(), TPGroup()
    asks = [replace(ask, sampling=replace(GREEDY, max_tokens=1)) for ask in case.asks]
    runner = make_runner(case.directory, group, way, device=cuda, dtype=torch.bfloat16)
    outcome = run(runner, group, way, asks)
    ours = torch.stack([outcome.answers[ask.name].logits[0] for ask in asks])
    exact = torch.stack([case.truths[ask.name].logits[0] for ask in asks])
    assert 0 < (ours - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_overlapped_staging_brings_the_same(
    cases: dict[str, Case], cuda: torch.device, dtype: torch.dtype
) -> None:
    """Copies on the input stage's stream, kernels on another: a missing wait would show as another id."""
    case, way, group = cases["qwen25-tied"], SCENARIOS["scarce"], TPGroup()
    plans = run(make_runner(case.directory, group, way), group, way, case.asks).plans
    runner = make_runner(case.directory, group, way, device=cuda, dtype=dtype)
    expected = in_turn(runner, plans)
    for _ in range(amount(5, simulated=1)):
        assert overlapped(runner, plans) == expected
