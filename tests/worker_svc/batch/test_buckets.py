"""Padding of decode steps: it changes no id, and the shapes it leads to are few."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from albireo.contract.plan import GroupShape, Plan
from tests.worker_svc.cuda.scene import SLOTS, ids, in_turn, make_runner, staggered
from worker_svc.batch import buckets
from worker_svc.batch.buckets import Bucket, DecodeBuckets
from worker_svc.batch.inputs import DecodeRows, ForwardInput
from worker_svc.batch.slot_table import HostBatch, SlotTable

CPU = torch.device("cpu")
SHAPE = GroupShape(num_blocks=1000, max_seqs=SLOTS, max_model_len=1000)


def decoding(*blocks: int) -> HostBatch:
    """A step that decodes one row for each number of blocks, in groups as the slot table makes them."""
    empty = SlotTable(SHAPE, 100).apply(Plan(epoch=1, step=1))
    groups, first = [], 0
    for longest in sorted(set(blocks)):
        rows = blocks.count(longest)
        groups.append(DecodeRows(first, np.zeros((rows, longest), dtype=np.int64)))
        first += rows
    forward = replace(empty.forward, decode_slots=np.arange(first), decodes=tuple(groups))
    return replace(empty, forward=forward)


def test_shapes() -> None:
    known = DecodeBuckets(SHAPE)
    assert known.choose(decoding()) is None
    assert known.choose(decoding(1)) == (1, 1)
    assert known.choose(decoding(*[3] * 3)) == (4, 4)
    assert known.choose(decoding(*[5] * 9)) == (16, 8)
    assert known.choose(decoding(*[2] * 17)) == (SLOTS, 2)
    assert known.choose(decoding(33)) == (1, 63)  # no request is longer
    assert Bucket(16, 8).words == 16 * 11


def test_one_long_context_does_not_pad_many_short_ones() -> None:
    known = DecodeBuckets(SHAPE)
    assert known.choose(decoding(*[1] * 15, 60)) is None  # 16 * 63 blocks for 75
    assert known.choose(decoding(*[1] * 3, 60)) == (4, 63)  # 252 blocks cost next to nothing


def test_the_number_of_shapes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "MAX_GRAPHS", 2)
    known = DecodeBuckets(SHAPE)
    assert known.choose(decoding(1)) == (1, 1)
    assert known.choose(decoding(2)) == (1, 2)
    assert known.choose(decoding(4)) is None
    assert known.choose(decoding(1)) == (1, 1)


@torch.inference_mode()
def test_padding_changes_no_id() -> None:
    runner, plans = make_runner(CPU), list(staggered(5, 30))
    expected = ids(in_turn(runner, plans))
    runner.reset()
    known = DecodeBuckets(runner.shape)
    found, padded = [], 0
    for plan in plans:
        batch = runner._table.apply(plan)
        if (bucket := known.choose(batch)) is not None:
            batch = known.pad(batch, bucket)
            padded += len(batch.samples.slots) < bucket.rows
            assert bucket.words <= known.max_words
        staged = runner._staging.to_device(batch)
        if bucket is not None:
            rows = batch.forward.decode_slots, batch.forward.positions, batch.forward.kv_rows
            expected_words = np.concatenate([*rows, batch.forward.decodes[0].blocks.ravel()])
            assert staged.buffer.words[: bucket.words].tolist() == expected_words.tolist()
            # What a graph reads of these words is the step's own forward.
            graph = bucket.packing.views(ForwardInput[Tensor], staged.buffer.words)
            assert graph.positions.tolist() == staged.input.forward.positions.tolist()
            assert graph.decodes[0].blocks.tolist() == staged.input.forward.decodes[0].blocks.tolist()
        found.append(runner.execute(staged).to_host().ids.tolist())
    assert found == expected
    assert padded > 10
    unused = runner._cache.storage[:, :, runner.shape.num_blocks]
    assert not unused.any()  # what pads block tables is read, and never written
