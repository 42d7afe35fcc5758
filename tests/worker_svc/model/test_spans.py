"""Rows that run their layers in spans, next to other rows, bring what one plain forward brings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from albireo.contract.plan import BLOCK_SIZE, blocks_for
from tests.worker_svc.checkpoints import FAMILIES, VOCAB, write
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.model.attention import AttentionPlan, RowGroup, StreamView
from worker_svc.model.causal_mask import CausalMasks
from worker_svc.model.config import ModelConfig
from worker_svc.model.kv_cache import KVCache, allocate
from worker_svc.model.loader import Loader
from worker_svc.model.spans import OtherRows, SpanRows, run_with_spans
from worker_svc.model.streamed_attention import Piece
from worker_svc.model.weight_reader import WeightReader

LAYERS = 5
LENGTH = 90  # tokens of each request
BLOCKS = blocks_for(LENGTH)
CPU = torch.device("cpu")
MASKS = CausalMasks(2 * LENGTH, torch.float32, CPU)


class Scene:
    """A model, and two requests that it has computed in one plain forward each."""

    def __init__(self, directory: Path) -> None:
        self._config = ModelConfig.from_dir(directory)
        reader = WeightReader(directory, torch.float32)
        self.model = Loader(self._config, reader, TPGroup(), CPU, torch.float32, 2 * LENGTH).load()
        generator = torch.Generator().manual_seed(1)
        self.ids = torch.randint(VOCAB, (2, LENGTH), generator=generator)
        self.caches = [self.new_cache() for _ in self.ids]
        rows, plan = torch.arange(LENGTH), chunk(0, LENGTH, torch.arange(BLOCKS))
        self.hidden = [
            self.model.hidden(ids, rows, rows, plan, cache.layers)
            for ids, cache in zip(self.ids, self.caches, strict=True)
        ]

    def new_cache(self) -> KVCache:
        """Of three requests."""
        return allocate(3 * BLOCKS, self._config, 1, torch.float32, CPU)


@pytest.fixture(scope="module", params=["qwen2", "qwen3"])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    directory = Path(tmp_path_factory.mktemp("deep"))
    write(FAMILIES[request.param], directory, num_hidden_layers=LAYERS)
    with torch.inference_mode():
        return Scene(directory)


def chunk(start: int, count: int, blocks: Tensor) -> AttentionPlan:
    positions = torch.arange(start, start + count)
    mask = MASKS.rows(positions, len(blocks) * BLOCK_SIZE)[None, None]
    return AttentionPlan((), (RowGroup(0, blocks, positions, mask),) if count else ())


@dataclass
class Lower:
    """The tier: some blocks of a request as the plain forward has left them, in pieces of some blocks."""

    cache: KVCache
    blocks: int
    random: Random
    layer: int
    asked: list[int] = field(default_factory=list)

    def next_layer(self) -> Iterator[Piece]:
        layer, first = self.cache.layers[self.layer], 0
        self.asked.append(self.layer)
        self.layer += 1
        while first < self.blocks:
            last = self.random.randint(first + 1, self.blocks)
            yield Piece(layer.keys[first:last].flatten(0, 1), layer.values[first:last].flatten(0, 1))
            first = last


class Streamed:
    """One request that runs in spans, with its first blocks in the tier: more and more of them."""

    def __init__(self, scene: Scene, number: int, cache: KVCache, computed: int) -> None:
        """``computed``: tokens that chunks have computed before."""
        self.computed = computed
        self._scene, self._number = scene, number
        self._device = slice(number * BLOCKS, (number + 1) * BLOCKS)
        self._storage = cache.storage[:, :, self._device]
        self._storage.copy_(scene.caches[number].storage[:, :, :BLOCKS])
        self._storage.flatten(2, 3)[:, :, computed:] = 0
        self._offloaded = 0  # blocks
        self._count = 0  # rows under way
        self._layer = 0
        self._x = torch.empty(0)

    def span(self, random: Random) -> tuple[SpanRows, Lower]:
        if self._layer == 0:
            self._count = random.randint(1, min(40, LENGTH - self.computed))
            ids = self._scene.ids[self._number][self.computed :][: self._count]
            self._x = self._scene.model.embedding(ids)
        self._offloaded = random.randint(self._offloaded, self.computed // BLOCK_SIZE)
        self._storage[:, :, : self._offloaded] = torch.nan  # a row that reads them there becomes NaN
        end = self.computed + self._count
        positions = torch.arange(self.computed, end)
        lower = Lower(self._scene.caches[self._number], self._offloaded, random, self._layer)
        view = StreamView(
            first=0,
            rows=self._count,
            before=self.computed - self._offloaded * BLOCK_SIZE,
            blocks=torch.arange(self._offloaded, blocks_for(end)) + self._device.start,
            pieces=lower,
        )
        layers = range(self._layer, random.randint(self._layer + 1, LAYERS))
        kv_rows = positions + self._device.start * BLOCK_SIZE
        return SpanRows(layers, self._x, positions, kv_rows, view), lower

    def advance(self, layers: range, state: Tensor) -> None:
        self._x, self._layer = state, layers.stop % LAYERS
        if not self._layer:
            expected = self._scene.hidden[self._number][self.computed :][: self._count]
            torch.testing.assert_close(state, expected, atol=1e-4, rtol=1e-4)
            self.computed += self._count


@torch.inference_mode()
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), others=st.booleans())
def test_any_division_into_rows_and_layers(scene: Scene, seed: int, others: bool) -> None:
    """Two requests in spans, and the first one's tokens once more as plain rows of a third."""
    cache, random = scene.new_cache(), Random(seed)
    streamed = [Streamed(scene, number, cache, random.randint(0, 50)) for number in (0, 1)]
    plain = 0
    while running := [request for request in streamed if request.computed < LENGTH]:
        running = [request for request in running if random.random() < 0.8]
        made = [request.span(random) for request in running]
        count = random.randint(0, min(20, LENGTH - plain)) if others else 0
        positions = torch.arange(plain, plain + count)
        x, states = run_with_spans(
            scene.model,
            OtherRows(
                x=scene.model.embedding(scene.ids[0][plain:][:count]),
                positions=positions,
                kv_rows=positions + 2 * BLOCKS * BLOCK_SIZE,
                plan=chunk(plain, count, torch.arange(blocks_for(plain + count)) + 2 * BLOCKS),
            ),
            [span for span, _ in made],
            iter(cache.layers),
        )
        torch.testing.assert_close(x, scene.hidden[0][plain : plain + count], atol=1e-4, rtol=1e-4)
        plain += count
        for request, (span, lower), state in zip(running, made, states, strict=True):
            assert lower.asked == list(span.layers)
            request.advance(span.layers, state)
