"""The forward's input: which positions each row attends to."""

from __future__ import annotations

import torch
from torch import Tensor

from albireo.contract.plan import Admission, Chunk, Grant, GroupShape, Plan, SamplingParams
from worker_svc.batch.inputs import ForwardInput, attention_plan, end_rows, ends_of
from worker_svc.batch.slot_table import SlotTable
from worker_svc.buffers.structs import Packing
from worker_svc.model.causal_mask import CausalMasks

SHAPE = GroupShape(num_blocks=12, max_seqs=3, max_model_len=96)
SAMPLING = SamplingParams(max_tokens=50, seed=0)


def forward_of(table: SlotTable, plan: Plan) -> ForwardInput[Tensor]:
    packing = Packing(table.apply(plan).forward)
    words = torch.zeros(packing.size, dtype=torch.int64)
    packing.fill(words.numpy())
    return packing.views(ForwardInput[Tensor], words)


def test_a_row_sees_its_own_position_and_all_before() -> None:
    table = SlotTable(SHAPE, 300)
    forward_of(
        table,
        Plan(
            1,
            1,
            admissions=tuple(Admission(slot, slot, "", (1,) * 40, 0, 0, SAMPLING) for slot in range(2)),
            grants=(Grant(0, (0, 1)), Grant(1, (2, 3, 4))),
            chunks=(Chunk(0, 0, 20), Chunk(1, 0, 40)),
        ),
    )
    last = Plan(1, 2, grants=(Grant(0, (6,)),), chunks=(Chunk(0, 20, 20),), num_decodes=1)
    forward = forward_of(table, last)
    plan = attention_plan(forward, CausalMasks(SHAPE.max_model_len, torch.float32, torch.device("cpu")))
    [group], [chunk] = plan.decodes, plan.chunks
    assert (group.first, group.positions.tolist(), group.blocks.tolist()) == (0, [40], [[2, 3, 4]])
    assert group.mask is not None
    assert (group.mask == 0).sum(-1).flatten().tolist() == [41]
    assert group.mask.shape == (1, 1, 1, 48)
    assert (chunk.rows, chunk.blocks.tolist()) == (slice(1, 21), [0, 1, 6])
    assert chunk.mask is not None
    assert (chunk.mask == 0).sum(-1).flatten().tolist() == list(range(21, 41))
    assert (chunk.mask[..., -8:] == -torch.inf).all()


def test_only_rows_that_sample_go_on_behind_the_keys_of_the_last_layer() -> None:
    """All decoding ones, and of chunks those that complete a prompt: each attends as among all rows."""
    table = SlotTable(SHAPE, 300)
    admissions = tuple(Admission(slot, slot, "", (1,) * 40, 0, 0, SAMPLING) for slot in range(3))
    grants = (Grant(0, (0, 1, 6)), Grant(1, (2, 3, 4)), Grant(2, (5, 7, 8)))
    chunks = (Chunk(0, 0, 40), Chunk(1, 0, 20))
    forward_of(table, Plan(1, 1, admissions=admissions, grants=grants, chunks=chunks))
    forward = forward_of(table, Plan(1, 2, chunks=(Chunk(2, 0, 30), Chunk(1, 20, 20)), num_decodes=1))
    rows = end_rows(forward.map_arrays(lambda array: array.numpy()))  # type: ignore[arg-type,return-value]
    assert rows.tolist() == [0, 50]
    plan = attention_plan(forward, CausalMasks(SHAPE.max_model_len, torch.float32, torch.device("cpu")))
    ends = ends_of(plan, forward, torch.from_numpy(rows))
    assert ends.plan.decodes == plan.decodes
    [group] = ends.plan.chunks
    assert (group.rows, group.blocks.tolist(), group.positions.tolist()) == (slice(1, 2), [2, 3, 4], [39])
    assert group.mask is not None
    assert (group.mask == 0).sum(-1).flatten().tolist() == [40]


def test_ragged_chunks_are_one_group_and_those_that_end_attend_as_decoding_rows() -> None:
    table = SlotTable(SHAPE, 300, ragged_tables=True)
    admissions = tuple(Admission(slot, slot, "", (1,) * 40, 0, 0, SAMPLING) for slot in range(3))
    grants = (Grant(0, (0, 1, 6)), Grant(1, (2, 3, 4)), Grant(2, (5, 7, 8)))
    chunks = (Chunk(0, 0, 40), Chunk(1, 0, 20))
    forward_of(table, Plan(1, 1, admissions=admissions, grants=grants, chunks=chunks))
    forward = forward_of(table, Plan(1, 2, chunks=(Chunk(2, 0, 30), Chunk(1, 20, 20)), num_decodes=1))
    plan = attention_plan(forward, None)
    [decodes], [group] = plan.decodes, plan.chunks
    assert decodes.starts is not None
    assert (decodes.rows, decodes.starts.tolist(), decodes.blocks.tolist()) == (slice(0, 1), [0], [0, 1, 6])
    found = group.chunks
    assert found is not None
    assert (group.rows, found.blocks.tolist()) == (slice(1, 51), [5, 7, 2, 3, 4])
    assert (found.starts.tolist(), found.firsts.tolist()) == ([0, 2], [0, 30, 50])
    assert found.positions.tolist() == [*range(30), *range(20, 40)]
    assert (found.counts, found.contexts) == ((30, 20), (30, 40))
    ends = ends_of(plan, forward, torch.tensor([0, 50]))
    assert ends.plan.chunks == ()
    [same, last] = ends.plan.decodes
    assert same is decodes
    assert last.starts is not None
    assert (last.rows, last.starts.tolist(), last.positions.tolist()) == (slice(1, 2), [2], [39])
