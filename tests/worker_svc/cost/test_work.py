"""What a step with spans computes in which layers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker_svc.cost.work import SpanWork, StepWork

LAYERS = 12


def test_a_step_without_spans_is_one_part() -> None:
    work = StepWork(decodes=3, context=90, prefill=5, prefill_pairs=15, greedy=3)
    assert work.parts() == [(1.0, work)]
    assert (work.rows, work.whole_rows) == (8, 8)


def test_rows_of_spans_are_in_their_layers_alone() -> None:
    chunk, row = SpanWork.of(range(6), 100, 10), SpanWork.of(range(3, 9), 64, 1)
    work = StepWork(decodes=2, context=50, greedy=2, spans=(chunk, row), layers=LAYERS)
    assert (work.rows, work.whole_rows) == (13, 2)
    assert work.parts() == [
        (3 / 12, StepWork(2, 50, 10, 1055, greedy=2, layers=LAYERS)),
        (3 / 12, StepWork(3, 50 + 65, 10, 1055, greedy=2, layers=LAYERS)),
        (3 / 12, StepWork(3, 50 + 65, 0, 0, greedy=2, layers=LAYERS)),
        (3 / 12, StepWork(2, 50, 0, 0, greedy=2, layers=LAYERS)),
    ]


spans = st.builds(
    lambda ends, start, count: SpanWork.of(range(*sorted(ends)), start, count),
    st.lists(st.integers(0, LAYERS), min_size=2, max_size=2, unique=True),
    st.integers(0, 1000),
    st.integers(1, 20),
)


@given(some=st.lists(spans, max_size=3), decodes=st.integers(0, 9))
def test_the_parts_are_all_layers_and_have_all_rows(some: list[SpanWork], decodes: int) -> None:
    parts = StepWork(decodes=decodes, spans=tuple(some), layers=LAYERS).parts()
    assert round(sum(share for share, _ in parts) * LAYERS, 9) == LAYERS
    rows = sum(share * LAYERS * part.rows for share, part in parts)
    assert round(rows, 6) == LAYERS * decodes + sum(len(span.layers) * span.rows for span in some)
