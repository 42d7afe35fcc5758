"""Reading a checkpoint: slices only, and refusals that name the file or tensor."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from albireo.checkpoint.files import CheckpointError
from albireo.runtime.kv_memory import KvMemory
from tests.worker_svc.checkpoints import FAMILIES, SHAPE, VOCAB, write
from tests.worker_svc.oracle import CPU, Scenario, make_runner
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.kernels.native_weights import PANEL
from worker_svc.model import weight_reader
from worker_svc.model.config import ModelConfig
from worker_svc.model.kv_cache import block_bytes
from worker_svc.model.loader import EMBEDDING, HEAD, Loader
from worker_svc.model.weight_files import INDEX, SINGLE
from worker_svc.model.weight_reader import Slice, WeightReader
from worker_svc.runner.model_runner import ModelRunner

QUERY = "model.layers.0.self_attn.q_proj.weight"


def load(directory: Path, group: TPGroup | None = None, dtype: torch.dtype = torch.float32) -> None:
    Loader(
        ModelConfig.from_dir(directory),
        WeightReader(directory, dtype),
        group or TPGroup(),
        CPU,
        dtype,
        max_model_len=64,
    ).load()


class Spy:
    """A safetensors file that counts the elements it hands out, by tensor."""

    counts: dict[str, int]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._file: Any = safe_open(*args, **kwargs)

    def keys(self) -> list[str]:
        return list(self._file.keys())

    def get_slice(self, name: str) -> SpySlice:
        return SpySlice(name, self._file.get_slice(name))


class SpySlice:
    """A tensor of the file, not read yet."""

    def __init__(self, name: str, found: Any) -> None:
        self._name = name
        self._found = found

    def get_shape(self) -> list[int]:
        return list(self._found.get_shape())

    def get_dtype(self) -> str:
        return str(self._found.get_dtype())

    def __getitem__(self, window: tuple[slice, ...]) -> torch.Tensor:
        piece: torch.Tensor = self._found[window]
        Spy.counts[self._name] = Spy.counts.get(self._name, 0) + piece.numel()
        return piece


@pytest.mark.parametrize("name", ["llama2", "llama-biased", "mistral", "qwen3-tied"])
def test_ranks_read_their_own_slices_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write(FAMILIES[name], tmp_path)
    whole = {
        tensor: t.numel() for path in tmp_path.glob("*.safetensors") for tensor, t in load_file(path).items()
    }
    monkeypatch.setattr(weight_reader, "safe_open", Spy)
    by_rank = []
    for rank in range(4):
        Spy.counts = {}
        load(tmp_path, TPGroup(rank, 4))
        by_rank.append(Spy.counts)
    assert all(counts.keys() == whole.keys() for counts in by_rank)
    for tensor, size in whole.items():
        read = [counts[tensor] for counts in by_rank]
        # Norms and the biases that are added after the sum are the same on every rank.
        if "norm" in tensor or tensor.endswith(("o_proj.bias", "down_proj.bias")):
            assert read == [size] * 4
        else:
            assert sum(read) == size, tensor
            # A part of the vocabulary is whole panels of rows of 64 numbers.
            whole_parts = PANEL * 64 if tensor in (EMBEDDING, HEAD) else 1
            assert max(read) <= -(-size // (4 * whole_parts)) * whole_parts, tensor


def test_slices_are_those_of_the_tensor(tmp_path: Path) -> None:
    tensor = torch.arange(60, dtype=torch.bfloat16).reshape(6, 10)
    save_file({"t": tensor}, tmp_path / SINGLE)
    weights = WeightReader(tmp_path, torch.float32)
    assert "t" in weights
    assert "u" not in weights
    found = weights.read("t", (6, 10), Slice(1, 4, 3))
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert torch.equal(found, tensor[:, 4:7].float())
    assert torch.equal(weights.read("t", (6, 10), Slice(0, 4, 4)), tensor[4:].float())
    assert weights.read("t", (6, 10), Slice(0, 8, 4)).shape == (0, 10)
    assert torch.equal(weights.read("t", (6, 10)), tensor.float())


def test_no_weights_at_all(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"neither {SINGLE} nor {INDEX}"):
        WeightReader(tmp_path, torch.float32)


def test_a_missing_shard(tmp_path: Path) -> None:
    write(FAMILIES["llama31"], tmp_path)
    lost = sorted(tmp_path.glob("*.safetensors"))[1]
    os.unlink(lost)
    with pytest.raises(CheckpointError, match=f"{lost.name}: no such file"):
        WeightReader(tmp_path, torch.float32)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 64])
def test_a_broken_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / SINGLE).write_bytes(content)
    with pytest.raises(CheckpointError, match=SINGLE):
        WeightReader(tmp_path, torch.float32)


def test_a_truncated_file(tmp_path: Path) -> None:
    write(FAMILIES["llama2"], tmp_path)
    whole = (tmp_path / SINGLE).read_bytes()
    (tmp_path / SINGLE).write_bytes(whole[:-1000])
    with pytest.raises(CheckpointError, match=SINGLE):
        load(tmp_path)


def test_an_index_that_names_what_no_file_has(tmp_path: Path) -> None:
    write(FAMILIES["qwen2"], tmp_path)
    file = tmp_path / json.loads((tmp_path / INDEX).read_text())["weight_map"][QUERY]
    tensors = load_file(file)
    del tensors[QUERY]
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=f"tensor {QUERY} is missing"):
        load(tmp_path)


def test_a_missing_tensor(tmp_path: Path) -> None:
    write(FAMILIES["llama2"], tmp_path)
    tensors = load_file(tmp_path / SINGLE)
    del tensors[QUERY]
    save_file(tensors, tmp_path / SINGLE)
    with pytest.raises(CheckpointError, match=f"tensor {QUERY} is missing"):
        load(tmp_path)


def test_a_vocabulary_that_the_config_does_not_have(tmp_path: Path) -> None:
    write(FAMILIES["llama2"], tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"vocab_size": VOCAB + 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=rf"tensor {EMBEDDING} has shape \(131, 64\), not \(132, 64\)"):
        load(tmp_path)


def test_too_little_memory_for_one_block(tmp_path: Path) -> None:
    write(FAMILIES["llama2"], tmp_path, num_key_value_heads=4)
    size = block_bytes(ModelConfig.from_dir(tmp_path), 1, torch.float32)
    # Keys and values of 16 tokens, 4 heads of 8 numbers of 4 bytes, in each layer.
    assert size == 2 * 16 * 4 * 8 * 4 * SHAPE["num_hidden_layers"]
    with pytest.raises(
        CheckpointError, match=f"{size - 1} bytes for KV hold no block: .* takes {size} bytes"
    ):
        _runner(tmp_path, size - 1)
    assert _runner(tmp_path, size).shape.num_blocks == 1
    assert _runner(tmp_path, size).shape.max_model_len == 16
    assert _runner(tmp_path, 2 * size - 1).shape.num_blocks == 1


def test_the_model_bounds_the_context(tmp_path: Path) -> None:
    write(FAMILIES["mistral"], tmp_path, sliding_window=48)
    assert make_runner(tmp_path, TPGroup(), Scenario(max_model_len=100)).shape.max_model_len == 48


def test_a_runner_refuses_what_tp_cannot_divide(tmp_path: Path) -> None:
    write(FAMILIES["llama2"], tmp_path, num_key_value_heads=2)
    with pytest.raises(
        CheckpointError, match="num_key_value_heads = 2 cannot be divided by a TP degree of 4"
    ):
        _runner(tmp_path, 1 << 20, TPGroup(1, 4))


def _runner(directory: Path, kv_memory: int, group: TPGroup | None = None) -> ModelRunner:
    return ModelRunner(
        directory,
        group or TPGroup(),
        device=CPU,
        dtype=torch.float32,
        kv_memory=KvMemory(kv_memory),
        max_seqs=2,
        max_model_len=64,
    )
