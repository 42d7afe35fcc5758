"""Sizes of frames, and what tells the KV of two checkpoints apart."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from albireo.checkpoint.files import CheckpointError
from tests.worker_svc.checkpoints import FAMILIES, write
from worker_svc.kv_tiers.layout import KvLayout, checkpoint_identity
from worker_svc.model.config import ModelConfig
from worker_svc.model.kv_cache import block_bytes

LAYOUT = KvLayout(3, 2, 8, torch.bfloat16, "c" * 32, tp=2, rank=1)


def test_the_sizes_are_those_of_the_tensors() -> None:
    assert LAYOUT.part_bytes == torch.empty(LAYOUT.part_shape, dtype=LAYOUT.dtype).nbytes
    assert LAYOUT.block_bytes == torch.empty(LAYOUT.block_shape, dtype=LAYOUT.dtype).nbytes


@pytest.mark.parametrize("tp", [1, 2])
def test_a_block_is_as_large_as_on_the_device(tmp_path: Path, tp: int) -> None:
    write(FAMILIES["qwen2"], tmp_path)
    config = ModelConfig.from_dir(tmp_path)
    layout = KvLayout.of(config, torch.float32, "", tp=tp, rank=0)
    assert layout.block_bytes == block_bytes(config, tp, torch.float32)


@pytest.mark.parametrize(
    "other",
    [
        replace(LAYOUT, layers=4),
        replace(LAYOUT, kv_heads=1),
        replace(LAYOUT, row_width=16),
        replace(LAYOUT, dtype=torch.float16),
        replace(LAYOUT, checkpoint="d" * 32),
        replace(LAYOUT, tp=4),
        replace(LAYOUT, rank=0),
    ],
)
def test_every_field_is_in_the_text(other: KvLayout) -> None:
    assert other.text != LAYOUT.text


def checkpoint(directory: Path, weights: bytes) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(weights)
    os.utime(directory / "model.safetensors", ns=(1, 1))
    return directory


def test_a_copy_with_its_times_is_the_same_checkpoint(tmp_path: Path) -> None:
    weights = os.urandom(3_000_000)
    first = checkpoint_identity(checkpoint(tmp_path / "first", weights))
    assert first == checkpoint_identity(checkpoint(tmp_path / "second", weights))


def test_other_numbers_in_the_same_shape_are_another_checkpoint(tmp_path: Path) -> None:
    """Even where a copy keeps no times, as in images that set all of them to the same."""
    weights = bytearray(os.urandom(3_000_000))
    before = checkpoint_identity(checkpoint(tmp_path / "first", bytes(weights)))
    weights[1_000_000:1_100_000] = os.urandom(100_000)
    assert before != checkpoint_identity(checkpoint(tmp_path / "second", bytes(weights)))


def test_the_last_byte_counts(tmp_path: Path) -> None:
    before = checkpoint_identity(checkpoint(tmp_path, bytes(100_000)))
    assert before != checkpoint_identity(checkpoint(tmp_path, bytes(99_999) + b"\1"))


def test_a_file_that_was_written_anew_is_another_checkpoint(tmp_path: Path) -> None:
    before = checkpoint_identity(checkpoint(tmp_path, bytes(100)))
    os.utime(tmp_path / "model.safetensors", ns=(1, 2))
    assert before != checkpoint_identity(tmp_path)


def test_a_missing_file_of_weights_is_an_error_of_the_checkpoint(tmp_path: Path) -> None:
    checkpoint(tmp_path, b"")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError):
        checkpoint_identity(tmp_path)
