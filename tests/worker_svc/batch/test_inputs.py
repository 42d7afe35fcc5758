"""The forward's input: which positions each row attends to."""

from __future__ import annotations

import torch
from torch import Tensor

from albireo.contract.plan import Admission, Chunk, Grant, GroupShape, Plan, SamplingParams
from worker_svc.batch.inputs import ForwardInput, attention_plan
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
    assert (group.first, group.rows, group.blocks.tolist()) == (0, 1, [2, 3, 4])
    assert (group.mask == 0).sum(-1).flatten().tolist() == [41]
    assert group.mask.shape == (1, 1, 1, 48)
    assert (chunk.first, chunk.rows, chunk.blocks.tolist()) == (1, 20, [0, 1, 6])
    assert (chunk.mask == 0).sum(-1).flatten().tolist() == list(range(21, 41))
    assert (chunk.mask[..., -8:] == -torch.inf).all()
