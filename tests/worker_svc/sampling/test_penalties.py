"""Penalty state over the life of slots: each step's penalties are those of the tokens that there are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.worker_svc.sampled import DRAWN, GREEDY, MAX_LEN, Bench, Row, expected, logits_of

VOCAB = 40
PENALIZED = replace(GREEDY, repetition_penalty=1.4, presence_penalty=0.6, frequency_penalty=0.9)
PROMPT = (1, 2, 3, 2)


def likeliest(logits: Tensor, row: Row) -> int:
    """What greedy sampling must bring, by transformers."""
    return int(expected(logits, replace(row, sampling=replace(row.sampling, temperature=1.0))).argmax())


def follow(logits: Tensor, row: Row, steps: int) -> list[int]:
    """The outputs of a request, if every step has the same logits."""
    outputs = list(row.outputs)
    for _ in range(steps):
        outputs.append(likeliest(logits, replace(row, outputs=tuple(outputs))))
    return outputs[len(row.outputs) :]


def run(bench: Bench, logits: Tensor, row: Row, steps: int, released: tuple[int, ...] = ()) -> list[int]:
    """A request alone in slot 0."""
    first = bench.admit({0: row}, released).ids(logits)[0]
    return [first, *(bench.decode(1).ids(logits)[0] for _ in range(steps - 1))]


def test_what_is_sampled_counts_from_the_next_step_on() -> None:
    logits = logits_of(1, VOCAB)[0]
    outputs = run(Bench(VOCAB), logits, Row(PENALIZED, PROMPT), 25)
    assert outputs == follow(logits, Row(PENALIZED, PROMPT), 25)
    assert len(set(outputs)) > 8
    assert len(set(outputs)) < 25


def test_a_preempted_request_goes_on_as_if_nothing_had_been() -> None:
    logits = logits_of(1, VOCAB)[0]
    bench, row = Bench(VOCAB), Row(PENALIZED, PROMPT)
    whole = run(bench, logits, row, 20)
    assert run(bench, logits, replace(row, outputs=tuple(whole[:9])), 11, released=(0,)) == whole[9:]


def test_a_slot_keeps_nothing_of_its_last_occupancy() -> None:
    """Nor of the row that ran once more after the end, nor of one that came in between without penalties."""
    logits = logits_of(1, VOCAB)[0]
    for between in (None, Row(GREEDY, (4,))):
        bench = Bench(VOCAB)
        run(bench, logits, Row(PENALIZED, (30, 31, 32)), 12)
        bench.decode(1).ids(logits)  # after the end of the request, which is not yet known
        released: tuple[int, ...] = (0,)
        if between is not None:
            assert run(bench, logits, between, 3, released) == [int(logits.argmax())] * 3
        assert run(bench, logits, Row(PENALIZED, PROMPT), 20, released) == follow(
            logits, Row(PENALIZED, PROMPT), 20
        )


def test_slots_do_not_mix_while_requests_come_and_go() -> None:
    logits = dict(enumerate(logits_of(4, VOCAB, scale=1.0)))
    rows = {
        0: Row(PENALIZED, PROMPT),
        1: Row(replace(PENALIZED, repetition_penalty=1.0, presence_penalty=2.0), (5,)),
        2: Row(GREEDY, (6, 7)),
        3: Row(replace(PENALIZED, repetition_penalty=0.7), (8, 9)),
    }
    bench = Bench(VOCAB)
    found: dict[int, list[int]] = {slot: [] for slot in rows}

    def note(ids: dict[int, int]) -> None:
        for slot, token in ids.items():
            found[slot].append(token)

    note(bench.admit({0: rows[0], 2: rows[2]}).ids(logits))
    note(bench.decode(2).ids(logits))
    note(bench.admit({1: rows[1], 3: rows[3]}, decodes=2).ids(logits))
    for _ in range(10):
        note(bench.decode(4).ids(logits))
    for slot, row in rows.items():
        assert found[slot] == follow(logits[slot], row, len(found[slot]))


def test_nothing_is_allocated_before_the_first_penalty() -> None:
    bench = Bench(VOCAB)
    bench.admit({0: Row(DRAWN)}).ids(torch.zeros(VOCAB))
    assert not bench.state._counts.numel()
    bench.admit({1: Row(PENALIZED)}, decodes=1).ids(torch.zeros(VOCAB))
    assert bench.state._counts.shape == (16, MAX_LEN)


@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_penalties_of_nothing_change_nothing(temperature: float) -> None:
    sampling = replace(DRAWN, temperature=temperature)
    logits = logits_of(1, VOCAB)[0]
    row = Row(replace(sampling, frequency_penalty=0.5), PROMPT)
    assert Bench(VOCAB).admit({0: row}).ids(logits) == Bench(VOCAB).admit({0: Row(sampling)}).ids(logits)
