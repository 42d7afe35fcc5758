"""Which rows end a request, found by arrays: the same as the one decision of the contract, row by row."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from albireo.contract.plan import Admission, Finish, SamplingParams, finish_of
from worker_svc.runner.interface import HostOutput
from worker_svc.sampling.failed import FAILED
from worker_svc.stages.finish import FinishDetector

SLOTS = 4
MAX_MODEL_LEN = 24
Rows = list[tuple[int, int, int]]
"""Slot, incarnation and id of each row of a step."""


def output(rows: Rows) -> HostOutput:
    slots, incarnations, ids = (np.array([row[i] for row in rows], dtype=np.int64) for i in range(3))
    return HostOutput(slots=slots, incarnations=incarnations, ids=ids, logprobs={})


def admission(slot: int, incarnation: int, prompt: int, outputs: int, sampling: SamplingParams) -> Admission:
    return Admission(slot, incarnation, f"r{incarnation}", (7,) * (prompt + outputs), outputs, 0, sampling)


class Model:
    """One row at a time, with `finish_of` alone."""

    def __init__(self, eos_ids: frozenset[int]) -> None:
        self._eos_ids = eos_ids
        self._occupancies: dict[int, tuple[Admission, int]] = {}  # by slot; with the outputs

    def admit(self, admission: Admission) -> None:
        self._occupancies[admission.slot] = (admission, admission.num_outputs)

    def row(self, slot: int, incarnation: int, token: int) -> Finish | None:
        """None for a row that does not count."""
        admission, outputs = self._occupancies.get(slot, (None, 0))
        if admission is None or admission.incarnation != incarnation:
            return None
        outputs += 1
        prompt = len(admission.tokens) - admission.num_outputs
        finish = finish_of(
            admission.sampling,
            token,
            outputs,
            prompt + outputs,
            eos_ids=self._eos_ids,
            max_model_len=MAX_MODEL_LEN,
        )
        if token == FAILED:
            finish = Finish.ERROR
        if finish:
            del self._occupancies[slot]
        else:
            self._occupancies[slot] = (admission, outputs)
        return finish


ids = st.integers(0, 9)
samplings = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 30),
    seed=st.just(0),
    stop_ids=st.lists(ids, max_size=2).map(tuple),
    ignore_eos=st.booleans(),
)


@settings(deadline=None)  # the machine may be busy
@given(eos_ids=st.frozensets(ids, max_size=2), data=st.data())
def test_every_row_of_every_history_ends_as_the_plain_decision_says(
    eos_ids: frozenset[int], data: st.DataObject
) -> None:
    finder = FinishDetector(SLOTS, eos_ids=eos_ids, max_model_len=MAX_MODEL_LEN)
    model = Model(eos_ids)
    incarnations = dict.fromkeys(range(SLOTS), 0)  # 0: no request yet
    for step in range(data.draw(st.integers(1, 25), "steps")):
        for slot in data.draw(st.sets(st.integers(0, SLOTS - 1), max_size=2), "admitted"):
            prompt = data.draw(st.integers(1, MAX_MODEL_LEN - 1), "prompt")
            sampling = data.draw(samplings, "sampling")
            room = min(sampling.max_tokens, MAX_MODEL_LEN - prompt)
            outputs = data.draw(st.integers(0, room - 1), "outputs")
            incarnations[slot] = step * SLOTS + slot + 1
            admitted = admission(slot, incarnations[slot], prompt, outputs, sampling)
            assert finder.admit(admitted).incarnation == admitted.incarnation
            model.admit(admitted)
        running = [slot for slot, incarnation in incarnations.items() if incarnation]
        tokens = data.draw(st.lists(st.one_of(ids, st.just(FAILED)), min_size=SLOTS, max_size=SLOTS), "ids")
        rows = [(slot, incarnations[slot], tokens[slot]) for slot in running]
        counted, finishes, _ = finder.advance(output(rows))
        expected = [(i, finish) for i, row in enumerate(rows) if (finish := model.row(*row)) is not None]
        assert list(zip(counted.tolist(), finishes, strict=True)) == expected


def ends(finder: FinishDetector, slot: int, incarnation: int, tokens: Iterable[int]) -> list[list[int]]:
    return [list(finder.advance(output([(slot, incarnation, token)]))[1]) for token in tokens]


def test_rows_after_an_end_do_not_count() -> None:
    finder = FinishDetector(SLOTS, eos_ids=frozenset({0}), max_model_len=MAX_MODEL_LEN)
    finder.admit(admission(2, 5, 3, 0, SamplingParams(max_tokens=9, seed=0)))
    assert ends(finder, 2, 5, [4, 0, 0, 4]) == [[0], [Finish.STOP], [], []]


def test_another_in_the_same_slot_counts_from_its_own_beginning() -> None:
    finder = FinishDetector(SLOTS, eos_ids=frozenset(), max_model_len=MAX_MODEL_LEN)
    finder.admit(admission(2, 5, 3, 0, SamplingParams(max_tokens=2, seed=0)))
    assert ends(finder, 2, 5, [4]) == [[0]]
    finder.admit(admission(2, 6, 3, 1, SamplingParams(max_tokens=3, seed=0)))
    assert ends(finder, 2, 5, [4]) == [[]]  # a row of the old one that was still under way
    assert ends(finder, 2, 6, [4, 4, 4]) == [[0], [Finish.LENGTH], []]


def test_a_row_that_could_not_be_sampled_ends_its_request_alone() -> None:
    finder = FinishDetector(SLOTS, eos_ids=frozenset(), max_model_len=MAX_MODEL_LEN)
    for slot in range(2):
        finder.admit(admission(slot, slot + 1, 3, 0, SamplingParams(max_tokens=9, seed=0)))
    _, finishes, _ = finder.advance(output([(0, 1, FAILED), (1, 2, 4)]))
    assert list(finishes) == [Finish.ERROR, Finish.NONE]


def test_a_step_without_rows_is_nothing() -> None:
    finder = FinishDetector(SLOTS, eos_ids=frozenset(), max_model_len=8)
    counted, finishes, prompts = finder.advance(output([]))
    assert (len(counted), len(finishes), prompts) == (0, 0, [])
