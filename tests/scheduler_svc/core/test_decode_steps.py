"""Which decoding rows are due in a step, without a look at the others."""

from __future__ import annotations

from array import array

from albireo.contract.plan import Admission, SamplingParams, Submission
from scheduler_svc.core.decode_steps import DecodeSteps
from scheduler_svc.core.request import Occupancy, Request

PROMPT = (1, 2, 3)
SAMPLING = SamplingParams(max_tokens=100, seed=0)


def row(slot: int, *, blocks: int = 1) -> Occupancy:
    """One that has computed its prompt."""
    request = Request(Submission("r", PROMPT, SAMPLING), (0.0, 0), array("I", PROMPT), 103, b"")
    occupancy = Occupancy.of(request, Admission(slot, slot + 1, "r", PROMPT, 0, 0, SAMPLING), first=True)
    occupancy.append_blocks(range(blocks))
    occupancy.scheduled_before = len(PROMPT)
    return occupancy


def due(steps: DecodeSteps, rows: list[Occupancy], last: int) -> dict[int, list[int]]:
    """Slots by step in which they are due, up to the step ``last``."""
    by_slot = {occupancy.slot: occupancy for occupancy in rows}
    found = {
        step: [o.slot for o in steps.publish(step, by_slot)] for step in range(steps.published + 1, last + 1)
    }
    return {step: slots for step, slots in found.items() if slots}


def test_a_row_is_due_where_its_block_is_full() -> None:
    steps, rows = DecodeSteps(), [row(0), row(1, blocks=2), row(2)]
    for occupancy in rows:
        steps.begin(occupancy)
    assert due(steps, rows, 20) == {13: [0, 2]}
    assert (rows[0].scheduled, rows[0].last_step) == (23, 20)
    rows[1].append_blocks([7])  # before it is due
    steps.expect(rows[1])
    assert due(steps, rows, 60) == {45: [1]}


def test_the_last_row_by_length_is_due() -> None:
    steps, rows = DecodeSteps(), [row(0, blocks=8)]
    steps.begin(rows[0])
    assert due(steps, rows, 200) == {99: [0]}


def test_a_row_that_stops_keeps_its_counts_and_goes_on_from_them() -> None:
    steps, rows = DecodeSteps(), [row(0)]
    steps.begin(rows[0])
    due(steps, rows, 5)
    steps.end(rows[0])
    assert due(steps, [], 15) == {}
    assert (rows[0].scheduled, rows[0].last_step) == (8, 5)
    steps.begin(rows[0])
    assert (rows[0].scheduled, rows[0].last_step) == (8, 5)
    assert due(steps, rows, 40) == {23: [0]}
