"""All layers in one native call bring what they bring one by one, to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.worker_svc.checkpoints import FAMILIES, write
from tests.worker_svc.oracle import CPU
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.model.attention import AttentionPlan, RowGroup
from worker_svc.model.config import ModelConfig
from worker_svc.model.formats import AS_THE_MODEL, Formats
from worker_svc.model.kv_cache import KVCache, allocate, kv_dtype
from worker_svc.model.loader import Loader
from worker_svc.model.transformer import Ends, Transformer
from worker_svc.model.weight_reader import WeightReader

BF16, FP32 = torch.bfloat16, torch.float32
BLOCKS = 12
KINDS = [
    (BF16, AS_THE_MODEL),
    (BF16, Formats("int8")),
    (FP32, Formats("int8", "int8")),
    (BF16, Formats(kv="int8")),
]


class Doubled(TPGroup):
    """Stands for two ranks with the same part each."""

    def __init__(self, size: int) -> None:
        super().__init__(0, size)

    def all_reduce(self, x: Tensor) -> Tensor:
        return x.mul_(self.size)


class Broken(TPGroup):
    def __init__(self) -> None:
        super().__init__(0, 2)
        self.calls = 0

    def all_reduce(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 2:  # that of the embedding and one of a layer
            raise ConnectionError("a peer is gone")
        return x


def load(
    directory: Path, group: TPGroup, dtype: torch.dtype, formats: Formats = AS_THE_MODEL
) -> tuple[Transformer, KVCache]:
    config = ModelConfig.from_dir(directory)
    reader = WeightReader(directory, dtype)
    model = Loader(config, reader, group, CPU, dtype, 128, formats).load()
    if model.together is None:
        pytest.skip("this CPU has no native products of these weights")
    cache = allocate(BLOCKS, config, group.size, kv_dtype(formats, dtype), CPU)
    if formats.kv == "dtype":
        cache.storage.copy_(torch.randn(cache.storage.shape, generator=torch.Generator().manual_seed(5)))
    return model, cache


def step(model: Transformer, cache: KVCache, *, with_chunk: bool) -> Tensor:
    """Two groups of decoding rows and, if asked for, a chunk, of which the last row alone goes on."""
    positions = torch.tensor([3, 17, 40, *(range(20, 29) if with_chunk else ())])
    tables = [torch.tensor([[1], [2]]), torch.tensor([[3, 4, 5]]), torch.tensor([6, 7])]
    tables[0] = torch.tensor([[1, 0], [2, 8]])
    kv_rows = [16 + 3, 8 * 16 + 1, 5 * 16 + 8]
    decodes = RowGroup(0, tables[0], positions[:2], None), RowGroup(2, tables[1], positions[2:3], None)
    plan, ends = AttentionPlan(decodes, ()), None
    if with_chunk:
        kv_rows += [int(tables[2][position // 16]) * 16 + position % 16 for position in range(20, 29)]
        plan = AttentionPlan(decodes, (RowGroup(3, tables[2], positions[3:], None),))
        last = RowGroup(3, tables[2], positions[-1:], None)
        ends = Ends(torch.tensor([0, 1, 2, 11]), AttentionPlan(decodes, (last,)))
    ids = torch.arange(len(positions)) * 7 % model.config.vocab_size
    return model.hidden(ids, positions, torch.tensor(kv_rows), plan, cache.layers, ends)


@pytest.mark.parametrize("with_chunk", [False, True])
@pytest.mark.parametrize(("dtype", "formats"), KINDS)
@pytest.mark.parametrize("family", ["mistral", "qwen3", "llama-biased"])
@pytest.mark.parametrize("size", [1, 2])
def test_the_same_bits(
    tmp_path: Path, family: str, dtype: torch.dtype, formats: Formats, size: int, with_chunk: bool
) -> None:
    write(FAMILIES[family], tmp_path, head_dim=16)
    model, cache = load(tmp_path, Doubled(size), dtype, formats)
    kept = cache.storage.clone()
    found, written = step(model, cache, with_chunk=with_chunk), cache.storage.clone()
    assert not torch.equal(written, kept)
    cache.storage.copy_(kept)
    expected = step(replace(model, together=None), cache, with_chunk=with_chunk)
    assert torch.equal(found, expected)
    assert torch.equal(written, cache.storage)


def test_a_model_of_one_layer(tmp_path: Path) -> None:
    """Where the only layer takes the last rows of a chunk alone, there is none to run together."""
    write(FAMILIES["qwen3"], tmp_path, num_hidden_layers=1)
    model, cache = load(tmp_path, TPGroup(), BF16)
    kept = cache.storage.clone()
    for with_chunk in (False, True):
        found = step(model, cache, with_chunk=with_chunk)
        cache.storage.copy_(kept)
        assert torch.equal(found, step(replace(model, together=None), cache, with_chunk=with_chunk))


def test_steps_of_other_sizes_and_caches_follow_one_another(tmp_path: Path) -> None:
    write(FAMILIES["qwen3"], tmp_path)
    model, cache = load(tmp_path, TPGroup(), BF16)
    other = allocate(BLOCKS, model.config, 1, BF16, CPU)
    other.storage.copy_(cache.storage).mul_(0.5)
    single = replace(model, together=None)
    for storage in (cache, other, cache):
        for with_chunk in (False, True, False):
            found = step(model, storage, with_chunk=with_chunk)
            assert torch.equal(found, step(single, storage, with_chunk=with_chunk))


def test_layers_whose_kv_is_on_its_way_run_one_by_one(tmp_path: Path) -> None:
    write(FAMILIES["qwen3"], tmp_path)
    model, cache = load(tmp_path, TPGroup(), BF16)
    assert model.together is not None
    x = torch.zeros(3, model.config.hidden_size, dtype=BF16)
    assert model.together.takes(x, cache.layers)
    assert not model.together.takes(x, iter(cache.layers))
    many = torch.zeros(1, dtype=BF16).expand(200_000, model.config.hidden_size)
    assert not model.together.takes(many, cache.layers)


def test_a_sum_that_fails_is_raised(tmp_path: Path) -> None:
    write(FAMILIES["qwen3"], tmp_path)
    group = Broken()
    model, cache = load(tmp_path, group, BF16)
    with pytest.raises(ConnectionError, match="a peer is gone"):
        step(model, cache, with_chunk=False)
    assert group.calls == 3
