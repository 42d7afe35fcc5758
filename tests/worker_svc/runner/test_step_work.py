"""What a step computes, counted from the batch of its plan."""

from __future__ import annotations

from albireo.contract.plan import Admission, Chunk, Grant, GroupShape, Plan, SamplingParams
from albireo.contract.tiers import Offload, Span
from worker_svc.batch.slot_table import SlotTable
from worker_svc.cost.work import SpanWork, StepWork
from worker_svc.runner.step_work import step_work

PROMPT = 20
GREEDY, DRAWN = SamplingParams(99, 1, temperature=0.0), SamplingParams(99, 1, temperature=0.7, top_k=5)
PENALIZED = (
    SamplingParams(99, 1, temperature=0.0, repetition_penalty=1.2),
    SamplingParams(99, 1, temperature=0.7, presence_penalty=0.5),
)


def test_chunks_and_then_decoding_rows_are_counted_by_what_they_attend_to() -> None:
    """Three requests of 20 tokens; one has only 16 of them computed in the first step."""
    sampling = (GREEDY, DRAWN, PENALIZED[0])
    lengths = (PROMPT, PROMPT, 16)
    table = SlotTable(GroupShape(32, 8, 64), 384, frozenset())
    first = Plan(
        1,
        1,
        admissions=tuple(
            Admission(slot, slot + 1, f"r{slot}", (5,) * PROMPT, 0, 0, params)
            for slot, params in enumerate(sampling)
        ),
        grants=tuple(Grant(slot, (2 * slot, 2 * slot + 1)) for slot in range(3)),
        chunks=tuple(Chunk(slot, 0, length) for slot, length in enumerate(lengths)),
    )
    assert step_work(table.apply(first)) == StepWork(
        prefill=56, prefill_pairs=2 * (20 * 21 // 2) + 16 * 17 // 2, greedy=1, drawn=1
    )
    second = Plan(1, 2, num_decodes=2, chunks=(Chunk(2, 16, 4),))
    assert step_work(table.apply(second)) == StepWork(
        decodes=2, context=21 + 21, prefill=4, prefill_pairs=17 + 18 + 19 + 20, greedy=1, drawn=1, penalized=1
    )


def test_a_row_with_penalties_is_one_at_any_temperature() -> None:
    table = SlotTable(GroupShape(32, 8, 64), 384, frozenset())
    plan = Plan(
        1,
        1,
        admissions=tuple(
            Admission(slot, slot + 1, f"r{slot}", (5,), 0, 0, params) for slot, params in enumerate(PENALIZED)
        ),
        grants=tuple(Grant(slot, (slot,)) for slot in range(2)),
        chunks=tuple(Chunk(slot, 0, 1) for slot in range(2)),
    )
    assert step_work(table.apply(plan)) == StepWork(prefill=2, prefill_pairs=2, penalized=2)


def test_an_empty_step_is_no_work() -> None:
    table = SlotTable(GroupShape(32, 8, 64), 384, frozenset())
    assert step_work(table.apply(Plan(1, 1))) == StepWork()


def test_rows_of_spans_are_counted_apart_with_their_layers() -> None:
    table = SlotTable(GroupShape(32, 8, 64, num_layers=6), 384, frozenset())
    keys = (bytes(16), bytes([1] * 16))
    plan = Plan(
        1,
        1,
        admissions=(Admission(0, 1, "r", (5,) * 40, 0, 32, GREEDY),),
        offloads=(Offload(0, 0, (3, 4), keys),),
        grants=(Grant(0, (0,)),),
        spans=(Span(0, 32, 8, 0, 4),),
    )
    assert step_work(table.apply(plan), 6) == StepWork(
        spans=(SpanWork(range(4), 8, 33 + 34 + 35 + 36 + 37 + 38 + 39 + 40),), layers=6
    )
    ending = step_work(table.apply(Plan(1, 2, spans=(Span(0, 32, 8, 4, 6),))), 6)
    assert (ending.greedy, ending.spans[0].layers, ending.whole_rows) == (1, range(4, 6), 0)
