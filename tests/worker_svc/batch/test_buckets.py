"""Padding of decode steps: it changes no id, and the numbers of rows that it leads to are few."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from albireo.contract.plan import GroupShape, Plan
from tests.worker_svc.cuda.scene import SLOTS, ids, in_turn, make_runner, staggered
from tests.worker_svc.ragged import RaggedKernels
from worker_svc.batch.buckets import DecodeBuckets
from worker_svc.batch.inputs import ChunkRows, ForwardInput, RaggedRows
from worker_svc.batch.slot_table import HostBatch, SlotTable
from worker_svc.model import loader

CPU = torch.device("cpu")
SHAPE = GroupShape(num_blocks=1000, max_seqs=SLOTS, max_model_len=1000)
EMPTY = SlotTable(SHAPE, 100).apply(Plan(epoch=1, step=1))


def decoding(*blocks: int, shape: GroupShape = SHAPE) -> HostBatch:
    """A step that decodes one row for each number of blocks."""
    lengths = np.array(blocks, dtype=np.int64)
    tables = RaggedRows(np.cumsum(lengths) - lengths, np.zeros(lengths.sum(), dtype=np.int64))
    rows = np.arange(len(blocks))
    return replace(EMPTY, forward=replace(EMPTY.forward, decode_slots=rows, decodes=(tables,)))


def test_a_bucket_is_a_number_of_rows() -> None:
    buckets = DecodeBuckets(SHAPE)
    assert buckets.sizes == (1, 2, 4, 8, 16, SLOTS)
    assert buckets.choose(EMPTY) is None
    assert buckets.choose(decoding(1)) == 1
    assert buckets.choose(decoding(63)) == 1
    assert buckets.choose(decoding(*[3] * 3)) == 4
    assert buckets.choose(decoding(*[1] * 16, 60)) == SLOTS


def test_a_step_that_prefills_runs_in_none() -> None:
    batch = decoding(1, 2)
    chunk = ChunkRows(2, 0, 1, True, np.zeros(1, dtype=np.int64))
    assert (
        DecodeBuckets(SHAPE).choose(replace(batch, forward=replace(batch.forward, chunks=(chunk,)))) is None
    )


def test_block_tables_that_a_graph_has_no_memory_for_run_without_one() -> None:
    """Requests may share blocks: their tables have more entries than there are blocks."""
    shape = replace(SHAPE, num_blocks=100, max_model_len=960)
    buckets = DecodeBuckets(shape)
    assert buckets.choose(decoding(*[40] * SLOTS)) == SLOTS
    assert buckets.choose(decoding(*[41] * SLOTS)) is None
    padded = buckets.pad(decoding(*[50] * 15), 16)
    assert len(padded.forward.decodes[0].blocks) + 4 * 16 <= buckets.packing(16).size


@torch.inference_mode()
def test_padding_changes_no_id(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = list(staggered(5, 30))
    expected = ids(in_turn(make_runner(CPU), plans))
    monkeypatch.setattr(loader, "native_kernels", lambda *_, **__: None)
    monkeypatch.setattr(loader, "triton_kernels", lambda *_: RaggedKernels())
    runner = make_runner(CPU, cuda_graphs=False)
    assert ids(in_turn(runner, plans)) == expected
    runner.reset()
    buckets = DecodeBuckets(runner.shape)
    found, padded = [], 0
    for plan in plans:
        batch = runner._table.apply(plan)
        if (rows := buckets.choose(batch)) is not None:
            batch = buckets.pad(batch, rows)
            padded += len(batch.samples.slots) < rows
        staged = runner._staging.to_device(batch)
        if rows is not None:
            check_words(buckets, rows, batch, staged.buffer.words)
        found.append(runner.execute(staged).to_host())
    assert ids(found) == expected
    assert padded > 10
    unused = runner._cache.storage[:, :, runner.shape.num_blocks]
    assert not unused.any()  # padding rows read it, and nothing writes it


def check_words(buckets: DecodeBuckets, rows: int, batch: HostBatch, words: Tensor) -> None:
    """What a graph reads of a step's words is the step's own forward."""
    packing = buckets.packing(rows)
    memory = torch.full((packing.size,), -1, dtype=torch.int64)
    memory[: len(words)] = words[: len(memory)]
    forward = packing.views(ForwardInput[Tensor], memory)
    [read], [own] = forward.decodes, batch.forward.decodes
    assert isinstance(read, RaggedRows)
    assert isinstance(own, RaggedRows)
    assert forward.decode_slots.tolist() == batch.forward.decode_slots.tolist()
    assert forward.positions.tolist() == batch.forward.positions.tolist()
    assert forward.kv_rows.tolist() == batch.forward.kv_rows.tolist()
    assert read.starts.tolist() == own.starts.tolist()
    assert read.blocks[: len(own.blocks)].tolist() == own.blocks.tolist()
