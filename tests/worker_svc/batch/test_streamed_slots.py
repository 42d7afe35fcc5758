"""Slots whose first blocks are in frames of a tier: their table, and rows that run in spans."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch

from albireo.contract.plan import Admission, Chunk, Grant, GroupShape, Plan, SamplingParams, table_digest
from albireo.contract.tiers import Offload, Span
from worker_svc.batch.slot_table import SlotTable, TableMismatch
from worker_svc.kv_tiers.streamed_frames import PIECE_BLOCKS, FramePiece, StreamedFrames

SHAPE = GroupShape(num_blocks=12, max_seqs=3, max_model_len=400, num_layers=4)
TOKENS = tuple(range(100, 180))
SAMPLING = SamplingParams(max_tokens=50, seed=3, prompt_logprobs=0)


def key(frame: int) -> bytes:
    return bytes([frame]) * 16


def offload(*frames: int, tier: int = 0, slot: int = 1) -> Offload:
    return Offload(slot, tier, frames, tuple(map(key, frames)))


def admission(num_cached: int = 0, slot: int = 1) -> Admission:
    return Admission(slot, 7, "r", TOKENS, 0, num_cached, SAMPLING)


def table_after(*plans: Plan) -> SlotTable:
    table = SlotTable(SHAPE, 300)
    for plan in plans:
        table.apply(plan)
    return table


CHUNKED = Plan(1, 1, admissions=(admission(),), grants=(Grant(1, (5, 6, 7)),), chunks=(Chunk(1, 0, 48),))
"""48 of 80 tokens are computed, in three blocks."""
DECODING = Plan(
    1, 1, admissions=(admission(),), grants=(Grant(1, (5, 6, 7, 8, 9, 10)),), chunks=(Chunk(1, 0, 80),)
)


def test_blocks_leave_the_table_and_the_prompt_goes_on_in_spans() -> None:
    table = table_after(CHUNKED)
    first = table.apply(
        Plan(1, 2, offloads=(offload(3, 9),), grants=(Grant(1, (2, 5)),), spans=(Span(1, 48, 20, 0, 3),))
    )
    [span] = first.forward.spans
    assert (span.slot, span.first_layer, span.last_layer, span.before) == (1, 0, 3, 16)
    assert span.blocks.tolist() == [7, 2, 5]
    assert span.positions.tolist() == list(range(48, 68))
    assert span.kv_rows.tolist() == [*range(32, 48), *range(80, 84)]
    assert span.ids is not None
    assert span.ids.tolist() == list(range(148, 168))
    assert first.fresh.tolist() == [2, 5]
    assert first.spans[0] == (7, range(3), (FramePiece(0, (3, 9), (key(3), key(9))),))
    assert not len(first.forward.positions)
    assert not len(first.samples.slots)
    assert not first.prompts

    second = table.apply(Plan(1, 3, spans=(Span(1, 48, 20, 3, 4),), digest=table_digest([(1, 7, 68, 3, 5)])))
    assert second.forward.spans[0].ids is None
    assert second.forward.spans[0].kv_rows.tolist() == span.kv_rows.tolist()
    assert not len(second.samples.slots)  # tokens are left
    assert second.prompts[0].start == 49
    assert second.prompts[0].rows.tolist() == list(range(20))

    third = table.apply(Plan(1, 4, offloads=(offload(1, tier=1),), spans=(Span(1, 68, 12, 0, 4),)))
    assert third.forward.spans[0].blocks.tolist() == [2, 5]
    assert [piece.tier for piece in third.spans[0].pieces] == [0, 1]
    assert third.samples.rows.tolist() == [11]
    assert third.samples.slots.tolist() == [1]
    assert third.samples.positions.tolist() == [0]


def test_a_decoding_slot_leaves_the_decode_set_and_takes_its_last_token() -> None:
    table = table_after(DECODING)
    first = table.apply(Plan(1, 2, offloads=(offload(0, 1, 2, 3),), spans=(Span(1, 80, 1, 0, 2),)))
    assert first.forward.spans[0].ids is None
    assert first.forward.spans[0].kv_rows.tolist() == [160]
    second = table.apply(Plan(1, 3, spans=(Span(1, 80, 1, 2, 4),)))
    assert second.samples.positions.tolist() == [1]
    third = table.apply(Plan(1, 4, spans=(Span(1, 81, 1, 0, 4),)))
    assert third.forward.spans[0].kv_rows.tolist() == [161]
    assert third.samples.positions.tolist() == [2]


def test_rows_of_last_layers_come_behind_all_others() -> None:
    table = table_after(
        CHUNKED,
        Plan(
            1,
            2,
            admissions=(admission(slot=0), admission(slot=2)),
            offloads=(offload(1),),
            grants=(Grant(0, (0, 1, 2, 3, 4, 8)), Grant(2, (9, 10)), Grant(1, (11, 5))),
            chunks=(Chunk(0, 0, 80),),
            spans=(Span(1, 48, 32, 0, 1),),
        ),
    )
    batch = table.apply(Plan(1, 3, chunks=(Chunk(2, 0, 30),), spans=(Span(1, 48, 32, 1, 4),), num_decodes=1))
    assert batch.samples.rows.tolist() == [0, 1 + 30 + 31]
    assert batch.samples.slots.tolist() == [0, 1]
    assert [prompt.rows[0] for prompt in batch.prompts] == [1, 31]


def test_a_cached_prefix_is_streamed_without_blocks() -> None:
    """Two blocks in frames, one that is shared on the device, and the rest to compute."""
    table = SlotTable(SHAPE, 300)
    batch = table.apply(
        Plan(
            1,
            1,
            admissions=(admission(num_cached=48),),
            offloads=(offload(4, 5),),
            grants=(Grant(1, (8, 3, 2)),),
            spans=(Span(1, 48, 32, 0, 4),),
            digest=table_digest([(1, 7, 80, 3, 2)]),
        )
    )
    assert batch.fresh.tolist() == [3, 2]
    assert batch.forward.spans[0].blocks.tolist() == [8, 3, 2]
    assert batch.forward.spans[0].before == 16


def test_a_released_slot_keeps_nothing() -> None:
    table = table_after(CHUNKED, Plan(1, 2, offloads=(offload(1),)))
    again = replace(CHUNKED, step=3, released=(1,))
    assert table.apply(again).forward.chunks[0].blocks.tolist() == [5, 6, 7]
    table = table_after(CHUNKED, Plan(1, 2, offloads=(offload(1),)))
    table.reset()
    assert table.apply(CHUNKED).forward.chunks[0].blocks.tolist() == [5, 6, 7]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(1, 3, spans=(Span(0, 0, 1, 0, 1),)), "slot 0.*it is not streamed"),
        (Plan(1, 3, spans=(Span(1, 48, 9, 0, 5),)), "there are 4 layers"),
        (Plan(1, 3, spans=(Span(1, 48, 9, 2, 2),)), "there are 4 layers"),
        (Plan(1, 3, spans=(Span(1, 47, 9, 0, 1),)), "layer 0 of token 48 is due"),
        (Plan(1, 3, spans=(Span(1, 48, 9, 1, 2),)), "layer 0 of token 48 is due"),
        (Plan(1, 3, spans=(Span(1, 48, 0, 0, 1),)), "80 tokens are known"),
        (Plan(1, 3, spans=(Span(1, 48, 33, 0, 1),)), "80 tokens are known"),
        (Plan(1, 3, spans=(Span(1, 48, 17, 0, 1),)), "needs 3 blocks, it has 2"),
        (Plan(1, 3, spans=(Span(1, 48, 1, 0, 1),) * 2), "two spans of one slot"),
        (Plan(1, 3, chunks=(Chunk(1, 48, 1),)), "it is streamed"),
        (Plan(1, 3, offloads=(offload(2, 3, 4),)), "3 blocks are offloaded, it has 2"),
        (Plan(1, 3, offloads=(offload(2, 3),)), "more blocks are offloaded"),
    ],
)
def test_plans_that_do_not_fit_are_refused(plan: Plan, message: str) -> None:
    table = table_after(CHUNKED, Plan(1, 2, offloads=(offload(1, 2),), grants=(Grant(1, (3,)),)))
    with pytest.raises(TableMismatch, match=message):
        table.apply(plan)


@pytest.mark.parametrize("span", [Span(1, 48, 8, 2, 3), Span(1, 48, 9, 1, 2), Span(1, 57, 1, 0, 1)])
def test_rows_under_way_come_first(span: Span) -> None:
    begun = Plan(1, 2, offloads=(offload(1, 2),), grants=(Grant(1, (3,)),), spans=(Span(1, 48, 8, 0, 1),))
    with pytest.raises(TableMismatch, match=r"\(48, 8, 1\) are due"):
        table_after(CHUNKED, begun).apply(Plan(1, 3, spans=(span,)))


def test_frames_are_joined_into_pieces() -> None:
    frames = StreamedFrames()
    for frame in range(PIECE_BLOCKS + 3):
        frames.add(offload(frame))
    frames.add(offload(*range(70, 80), tier=1))
    assert frames.blocks == PIECE_BLOCKS + 13
    assert [(piece.tier, len(piece.frames)) for piece in frames.pieces] == [
        (0, PIECE_BLOCKS),
        (0, 3),
        (1, 10),
    ]
    joined = [frame for piece in frames.pieces for frame in piece.frames]
    assert joined == [*range(PIECE_BLOCKS + 3), *range(70, 80)]
    assert all(len(piece.frames) == len(piece.keys) for piece in frames.pieces)


def test_the_hidden_states_of_rows_under_way_go_with_their_request() -> None:
    """The slot's next request does not find them, and they keep no memory of the device."""
    table = table_after(CHUNKED)
    [first] = table.apply(
        Plan(1, 2, offloads=(offload(3, 9),), grants=(Grant(1, (2, 5)),), spans=(Span(1, 48, 20, 0, 2),))
    ).forward.spans
    first.states.x = torch.zeros(20, 8)
    [second] = table.apply(Plan(1, 3, spans=(Span(1, 48, 20, 2, 3),))).forward.spans
    assert second.states is first.states
    kept = weakref.ref(first.states.x)
    del first, second
    again = Plan(
        1,
        4,
        released=(1,),
        admissions=(admission(num_cached=32),),
        offloads=(offload(3, 9),),
        grants=(Grant(1, (2,)),),
        spans=(Span(1, 32, 4, 0, 2),),
    )
    [third] = table.apply(again).forward.spans
    assert third.states.x is None
    assert kept() is None
