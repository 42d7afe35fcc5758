"""A context past the device's memory on the simulated device: pieces come by a copy stream of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.worker_svc.checkpoints import FAMILIES, write
from tests.worker_svc.ranks import run_group
from tests.worker_svc.runner.streamed import PlainTokens, Tokens
from tests.worker_svc.runner.streamed_plans import AGAIN, LAYERS, LONGEST, OUTPUTS, SAMPLING, STREAMED
from tests.worker_svc.simulated_cuda.device import CUDA
from tests.worker_svc.simulated_cuda.installed import simulated_cuda
from tests.worker_svc.simulated_cuda.ranks import OnSimulated
from worker_svc.collectives.tp_group import TPGroup


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = Path(tmp_path_factory.mktemp("deep"))
    write(FAMILIES["qwen2"], path, num_hidden_layers=LAYERS, max_position_embeddings=LONGEST)
    return path


@pytest.fixture(scope="module")
def expected(directory: Path) -> list[int]:
    """Of the CPU, with enough memory."""
    return PlainTokens(directory, SAMPLING, OUTPUTS + 2)(TPGroup())[STREAMED][: OUTPUTS + 1]


@pytest.mark.parametrize(("seed", "overlap"), [pytest.param(0, False, marks=pytest.mark.slow), (2, True)])
def test_the_tokens_are_those_of_the_cpu(
    directory: Path, tmp_path: Path, expected: list[int], seed: int, overlap: bool
) -> None:
    with simulated_cuda(seed):
        found = Tokens(directory, SAMPLING, 1, tmp_path, overlap, CUDA)(TPGroup())
    assert found[STREAMED] == expected
    assert found[AGAIN] == expected


@pytest.mark.slow
def test_the_tokens_of_two_ranks_are_those_of_the_cpu(
    directory: Path, tmp_path: Path, expected: list[int]
) -> None:
    """Each reads its own tier, and all exchange in each step what they lack."""
    job = OnSimulated(Tokens(directory, SAMPLING, 1, tmp_path, True, CUDA), 2)
    found = run_group(2, {"tokens": job}, tmp_path)["tokens"]
    assert found[STREAMED] == expected
    assert found[AGAIN] == expected
