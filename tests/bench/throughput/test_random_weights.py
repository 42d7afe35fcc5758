"""Random weights make a model of any shape, which runs as one from files does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from albireo.runtime.kv_memory import KvMemory
from bench.gpu_session.shapes import SHAPES, write_shape
from bench.throughput.random_weights import RandomWeights
from bench.throughput.static_batch import plans
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.model.config import ModelConfig
from worker_svc.model.loader import HEAD
from worker_svc.model.weight_reader import Slice
from worker_svc.runner.model_runner import ModelRunner

CPU = torch.device("cpu")


def sampled(directory: Path, seed: int) -> list[list[int]]:
    runner = ModelRunner(
        directory,
        TPGroup(),
        device=CPU,
        dtype=torch.float32,
        kv_memory=KvMemory(1 << 22),
        max_seqs=3,
        max_model_len=64,
        weights=RandomWeights(directory, CPU, torch.float32, seed),
    )
    todo = plans(3, 20, 9, runner.config.vocab_size)
    return [runner.execute(runner.prepare(plan)).to_host().ids.tolist() for plan in todo]


def test_a_seed_gives_the_model(tmp_path: Path) -> None:
    write_shape("tiny", tmp_path)
    assert sampled(tmp_path, seed=1) == sampled(tmp_path, seed=1)
    assert sampled(tmp_path, seed=1) != sampled(tmp_path, seed=2)


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_a_supported_model_with_a_head_where_it_needs_one(name: str, tmp_path: Path) -> None:
    write_shape(name, tmp_path)
    weights = RandomWeights(tmp_path, CPU, torch.bfloat16)
    assert (HEAD in weights) != ModelConfig.from_dir(tmp_path).tied_embeddings


def test_a_rank_reads_its_part(tmp_path: Path) -> None:
    write_shape("tiny", tmp_path)
    weights = RandomWeights(tmp_path, CPU, torch.bfloat16)
    assert weights.read("model.layers.0.mlp.down_proj.weight", (8, 12), Slice(1, 4, 4)).shape == (8, 4)
    assert weights.read("lm_head.weight", (10, 6), Slice(0, 8, 8)).shape == (2, 6)
    assert weights.read("model.norm.weight", (6,)).tolist() == [1.0] * 6
