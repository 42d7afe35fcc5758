"""The host's replica of the slot table: it follows the scheduler, or refuses to go on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from albireo.contract.plan import (
    Admission,
    Chunk,
    Grant,
    GroupShape,
    Plan,
    SamplingParams,
    table_digest,
)
from worker_svc.batch.inputs import DecodeRows, RaggedRows
from worker_svc.batch.slot_table import SlotTable, TableMismatch

SHAPE = GroupShape(num_blocks=12, max_seqs=3, max_model_len=96)
SCRATCH = 12
VOCAB = 300
EOS = frozenset({7, 9})
SAMPLING = SamplingParams(max_tokens=50, seed=2**64 - 1)


def admission(
    slot: int,
    length: int,
    *,
    num_outputs: int = 0,
    num_cached: int = 0,
    incarnation: int = 1,
    sampling: SamplingParams = SAMPLING,
) -> Admission:
    tokens = tuple(range(100, 100 + length))
    return Admission(slot, incarnation, f"r{incarnation}", tokens, num_outputs, num_cached, sampling)


def table_with(length: int, blocks: tuple[int, ...], sampling: SamplingParams = SAMPLING) -> SlotTable:
    """One request in slot 1, prefilled at once."""
    table = SlotTable(SHAPE, VOCAB, EOS)
    plan = Plan(
        1,
        1,
        admissions=(admission(1, length, sampling=sampling),),
        grants=(Grant(1, blocks),),
        chunks=(Chunk(1, 0, length),),
    )
    table.apply(plan)
    return table


def digest_of(slot: int, incarnation: int, computed: int, blocks: tuple[int, ...]) -> int:
    """What the scheduler would send for a table of one slot."""
    return table_digest([(slot, incarnation, computed, len(blocks), blocks[-1])])


def test_prefill_in_chunks_then_decode() -> None:
    table = SlotTable(SHAPE, VOCAB, EOS)
    first = table.apply(
        Plan(1, 1, admissions=(admission(2, 20),), grants=(Grant(2, (5,)),), chunks=(Chunk(2, 0, 13),))
    )
    assert first.forward.chunk_ids.tolist() == list(range(100, 113))
    assert first.forward.positions.tolist() == list(range(13))
    assert first.forward.kv_rows.tolist() == list(range(80, 93))
    assert not len(first.samples.slots)
    second = table.apply(Plan(1, 2, grants=(Grant(2, (3,)),), chunks=(Chunk(2, 13, 7),)))
    assert second.forward.kv_rows.tolist() == [93, 94, 95, 48, 49, 50, 51]
    assert second.forward.chunks[0].blocks.tolist() == [5, 3]
    assert [batch.fresh.tolist() for batch in (first, second)] == [[5], [3]]
    assert second.samples.rows.tolist() == [6]
    assert second.samples.slots.tolist() == [2]
    third = table.apply(Plan(1, 3, num_decodes=1))
    assert third.forward.decode_slots.tolist() == [2]
    assert third.forward.positions.tolist() == [20]
    assert third.forward.kv_rows.tolist() == [52]
    assert not len(third.forward.chunk_ids)
    assert not len(third.fresh)
    assert third.forward.decodes[0].blocks.tolist() == [[5, 3]]
    assert [int(b.samples.positions[0]) for b in (second, third)] == [0, 1]
    assert third.samples.seeds.tolist() == [2**64 - 1]


def test_a_prefix_hit_and_a_recompute_start_where_they_should() -> None:
    table = SlotTable(SHAPE, VOCAB, EOS)
    batch = table.apply(
        Plan(
            1,
            1,
            admissions=(admission(0, 40, num_outputs=5, num_cached=32),),
            grants=(Grant(0, (9, 8, 7)),),
            chunks=(Chunk(0, 32, 8),),
        )
    )
    assert batch.forward.chunk_ids.tolist() == list(range(132, 140))
    assert batch.forward.kv_rows.tolist() == list(range(112, 120))
    assert batch.forward.positions.tolist() == list(range(32, 40))
    assert batch.fresh.tolist() == [7]  # the others hold the prefix
    assert batch.samples.positions.tolist() == [5]


def test_decode_rows_are_grouped_by_context_and_padded_with_scratch() -> None:
    table = table_with(3, (4,))
    table.apply(
        Plan(
            1,
            2,
            admissions=(admission(0, 40, incarnation=2), admission(2, 60, incarnation=3)),
            grants=(Grant(0, (0, 1, 2)), Grant(2, (5, 6, 7, 8))),
            chunks=(Chunk(0, 0, 40), Chunk(2, 0, 60)),
            num_decodes=1,
        )
    )
    batch = table.apply(Plan(1, 3, num_decodes=3))
    assert batch.forward.decode_slots.tolist() == [1, 0, 2]
    assert batch.forward.positions.tolist() == [4, 40, 60]
    assert [group.blocks.tolist() for group in batch.forward.decodes] == [
        [[4]],
        [[0, 1, 2, SCRATCH], [5, 6, 7, 8]],
    ]
    assert batch.samples.incarnations.tolist() == [1, 2, 3]
    firsts = [group.first for group in batch.forward.decodes if isinstance(group, DecodeRows)]
    assert firsts == [0, 1]


def test_ragged_block_tables_are_one_group_without_padding() -> None:
    table = SlotTable(SHAPE, VOCAB, EOS, ragged_tables=True)
    admissions = [admission(slot, length, incarnation=slot + 1) for slot, length in enumerate((40, 3, 63))]
    grants = (Grant(0, (0, 1, 2)), Grant(1, (4,)), Grant(2, (5, 6, 7, 8)))
    chunks = (Chunk(0, 0, 40), Chunk(1, 0, 3), Chunk(2, 0, 63))
    assert not table.apply(
        Plan(1, 1, admissions=tuple(admissions), grants=grants, chunks=chunks)
    ).forward.decodes
    for step, last in ((2, [5, 6, 7, 8]), (3, [5, 6, 7, 8, 9])):
        batch = table.apply(Plan(1, step, grants=(Grant(2, (9,)),) if step == 3 else (), num_decodes=3))
        [rows] = batch.forward.decodes
        assert isinstance(rows, RaggedRows)
        assert batch.forward.decode_slots.tolist() == [0, 1, 2]
        assert rows.starts.tolist() == [0, 3, 4]
        assert rows.blocks.tolist() == [0, 1, 2, 4, *last]


def test_a_slot_is_used_again_with_nothing_left_of_its_last_occupancy() -> None:
    table = table_with(40, (1, 2, 3), replace(SAMPLING, temperature=0.5, top_k=3, min_tokens=9))
    again = Plan(
        1,
        2,
        released=(1,),
        admissions=(admission(1, 4, incarnation=2, sampling=SamplingParams(max_tokens=5, seed=8)),),
        grants=(Grant(1, (6,)),),
        chunks=(Chunk(1, 0, 4),),
        digest=digest_of(1, 2, 4, (6,)),
    )
    batch = table.apply(again)
    assert not len(batch.forward.decode_slots)
    assert batch.forward.kv_rows.tolist() == [96, 97, 98, 99]
    samples = batch.samples
    assert (samples.positions.tolist(), samples.seeds.tolist()) == ([0], [8])
    assert (samples.temperature.tolist(), samples.top_k.tolist()) == ([1.0], [0])
    assert not len(samples.masked.ids)
    decode = table.apply(Plan(1, 3, num_decodes=1))
    assert decode.forward.decodes[0].blocks.tolist() == [[6]]


def test_pause_and_resume_keep_the_state() -> None:
    table = table_with(4, (6,))
    assert not len(table.apply(Plan(1, 2, paused=(1,))).forward.positions)
    batch = table.apply(Plan(1, 3, resumed=(1,), num_decodes=1))
    assert (batch.forward.positions.tolist(), batch.samples.positions.tolist()) == ([4], [1])


def test_reset_frees_every_slot() -> None:
    table = table_with(4, (6,))
    table.reset()
    assert table.digest() == SlotTable(SHAPE, VOCAB, EOS).digest()
    assert not len(table.apply(Plan(2, 1)).forward.positions)


@pytest.mark.parametrize(
    ("sampling", "masked"),
    [
        (SAMPLING, []),
        (replace(SAMPLING, min_tokens=1), [[7, 9], []]),
        (replace(SAMPLING, min_tokens=2, stop_ids=(3, 7)), [[3, 7, 9], [3, 7, 9], []]),
        (replace(SAMPLING, min_tokens=1, stop_ids=(3,), ignore_eos=True), [[3], []]),
        (replace(SAMPLING, min_tokens=1, ignore_eos=True), [[], []]),
    ],
)
def test_end_tokens_are_masked_until_min_tokens_are_out(
    sampling: SamplingParams, masked: list[list[int]]
) -> None:
    table = SlotTable(SHAPE, VOCAB, EOS)
    plan = Plan(
        1,
        1,
        admissions=(admission(1, 4, sampling=sampling),),
        grants=(Grant(1, (0,)),),
        chunks=(Chunk(1, 0, 4),),
    )
    for step, ids in enumerate(masked, 2):
        samples = table.apply(plan).samples
        assert samples.masked.ids.tolist() == ids
        assert samples.masked.rows.tolist() == [0] * len(ids)
        plan = Plan(1, step, num_decodes=1)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(1, 2, num_decodes=2), "step 2: 1 rows decode, the plan says 2"),
        (Plan(1, 2, num_decodes=0), "step 2: 1 rows decode, the plan says 0"),
        (Plan(1, 2, num_decodes=1, digest=1), "step 2: the digest"),
        (Plan(1, 2, admissions=(admission(1, 3),), num_decodes=1), "slot 1 is admitted twice"),
        (Plan(1, 2, chunks=(Chunk(1, 0, 4),), num_decodes=1), "slot 1: a chunk at 0, 5 computed"),
        (
            Plan(1, 2, grants=(Grant(1, (2, 10**6)),), num_decodes=1),
            "slot 1 is granted blocks that there are",
        ),
        (Plan(1, 2, grants=(Grant(1, (-1,)),), num_decodes=1), "slot 1 is granted blocks that there are not"),
    ],
)
def test_a_plan_for_another_table_is_refused(plan: Plan, message: str) -> None:
    with pytest.raises(TableMismatch, match=message):
        table_with(4, (6,)).apply(plan)


@pytest.mark.parametrize(("incarnation", "computed", "blocks"), [(2, 5, (6,)), (1, 4, (6,)), (1, 5, (7,))])
def test_the_digest_sees_every_part_of_a_row(incarnation: int, computed: int, blocks: tuple[int]) -> None:
    good = Plan(1, 2, num_decodes=1, digest=digest_of(1, 1, 5, (6,)))
    table_with(4, (6,)).apply(good)
    bad = replace(good, digest=digest_of(1, incarnation, computed, blocks))
    with pytest.raises(TableMismatch):
        table_with(4, (6,)).apply(bad)
