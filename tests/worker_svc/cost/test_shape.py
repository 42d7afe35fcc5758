"""The sizes of a model on one rank."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from albireo.models import TINY
from tests.worker_svc.cost.shapes import QWEN_32B
from worker_svc.cost.shape import ModelShape
from worker_svc.model.config import ModelConfig
from worker_svc.model.kv_cache import block_bytes


def test_the_bundled_model_has_the_bytes_of_its_checkpoint() -> None:
    with safe_open(TINY / "model.safetensors", framework="pt") as file:
        stored = sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118 (no mapping)
    assert ModelShape(ModelConfig.from_dir(TINY), 1).weight_bytes == stored


def test_a_published_model_has_the_parameters_of_its_files() -> None:
    """Qwen2.5-32B: 32,763,876,352 in its files, 458,752 of them biases, which are left out."""
    assert ModelShape(QWEN_32B, 1).weight_bytes / 2 == 32_763_876_352 - 458_752


@pytest.mark.parametrize("tp", [1, 2, 4, 8])
def test_the_kv_of_a_token_is_what_the_cache_allocates(tp: int) -> None:
    shape = ModelShape(QWEN_32B, tp)
    assert shape.kv_token_bytes * 16 == block_bytes(QWEN_32B, tp, torch.bfloat16)


def test_ranks_divide_the_layers_and_pad_the_vocabulary() -> None:
    config = replace(QWEN_32B, vocab_size=1001)
    whole, half = ModelShape(config, 1), ModelShape(config, 2)
    assert half.layer_parameters * 2 == whole.layer_parameters
    assert (whole.vocabulary, half.vocabulary) == (1001, 501)


def test_a_tied_table_is_held_once_and_read_as_the_head() -> None:
    tied = ModelShape(replace(QWEN_32B, tied_embeddings=True), 1)
    untied = ModelShape(QWEN_32B, 1)
    assert untied.weight_bytes - tied.weight_bytes == untied.head_parameters * 2
    assert tied.head_parameters == untied.head_parameters
