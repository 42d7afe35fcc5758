"""Workloads drawn from distributions."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.planning.workloads.draw import make_workload
from albireo.planning.workloads.presets import PRESETS


def test_requests_have_the_lengths_asked_for() -> None:
    workload = make_workload("uniform:10-20", "fixed:7", num_requests=300)
    assert {r.prompt for r in workload.requests} == set(range(10, 21))
    assert {r.outputs for r in workload.requests} == {7}
    assert workload.concurrency == 16
    assert workload.longest == 27
    assert workload.name == "16 at a time, 300 requests, prompts uniform:10-20, outputs fixed:7"


def test_the_same_arguments_make_the_same_workload() -> None:
    def made(seed: int) -> Any:
        return make_workload("normal:20,5", "lognormal:9,1", rate=3.0, num_requests=40, seed=seed)

    assert made(1) == made(1)
    assert made(1).requests != made(2).requests


def test_more_requests_begin_with_the_same_ones() -> None:
    few = make_workload("normal:20,5", "lognormal:9,1", rate=3.0, num_requests=10)
    many = make_workload("normal:20,5", "lognormal:9,1", rate=3.0, num_requests=30)
    assert many.requests[:10] == few.requests


def test_lengths_do_not_depend_on_how_requests_arrive() -> None:
    closed = make_workload("normal:20,5", "normal:20,5", concurrency=2)
    opened = make_workload("normal:20,5", "normal:20,5", rate=5.0, burstiness=0.3)
    assert [(r.prompt, r.outputs) for r in closed.requests] == [
        (r.prompt, r.outputs) for r in opened.requests
    ]


def test_drawn_lengths_are_cut_to_the_context() -> None:
    workload = make_workload("uniform:1-60", "uniform:4-60", num_requests=400, max_model_len=64)
    assert workload.longest == 64
    assert all(r.prompt >= 1 and r.outputs >= 4 for r in workload.requests)


def test_lengths_of_which_none_fits_the_context_are_an_error() -> None:
    assert "cut" not in make_workload("fixed:40", "fixed:24", max_model_len=64).name
    with pytest.raises(ValueError, match=r"prompts of 40 and outputs of 25 .* fit .* of 64 tokens"):
        make_workload("fixed:40", "uniform:25-50", max_model_len=64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt_length": "zipf:3"}, "prompt_length: 'zipf:3': must be fixed:N"),
        ({"output_length": "fixed:0"}, "output_length: 'fixed:0': must be"),
        ({"num_requests": 0}, "num_requests: 0: must be"),
        ({"rate": -1.0}, "rate: -1: must be"),
        ({"turns": 0}, "turns: 0: must be"),
        ({"think_time": 3.0}, "think_time: is of conversations"),
        ({"turns": 2, "think_time": -1.0}, "think_time: -1: must be"),
    ],
)
def test_a_bad_value_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_workload(**arguments)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_can_be_drawn_and_states_its_source(name: str) -> None:
    preset = PRESETS[name]
    assert make_workload(preset.prompt_length, preset.output_length).longest > 100
    assert preset.source


def test_the_name_says_how_many_requests_are_cut() -> None:
    """Their lengths are no longer those that were asked for, and a report shows the name."""
    drawn = make_workload("uniform:1-60", "uniform:4-60", num_requests=400)
    longer = sum(request.prompt + request.outputs > 64 for request in drawn.requests)
    assert 0 < longer < 400
    name = make_workload("uniform:1-60", "uniform:4-60", num_requests=400, max_model_len=64).name
    assert name.endswith(f", {longer} cut to the context of 64 tokens")


def test_requests_are_bounded() -> None:
    with pytest.raises(ValueError, match="num_requests: 1000000000: must be from 1 to 1000000"):
        make_workload(num_requests=10**9)


def test_each_turn_of_a_conversation_adds_to_the_one_before() -> None:
    workload = make_workload("uniform:5-9", "fixed:4", num_requests=500, turns=4, think_time=2.0)
    assert workload.name.endswith("outputs fixed:4, conversations of 4 turns, 2 s apart")
    assert workload.first_turns == list(range(0, 500, 4))
    assert workload.next_turns == {i: i + 1 for i in range(499) if i % 4 < 3}
    assert {workload.own_tokens(i) for i in range(500)} == set(range(5, 10))
    thinks = [request.think for request in workload.requests if request.after is not None]
    assert sum(thinks) / len(thinks) == pytest.approx(2.0, rel=0.15)
    assert all(request.think == 0 for request in workload.requests if request.after is None)


def test_a_conversation_that_fills_the_context_is_over() -> None:
    workload = make_workload("fixed:20", "fixed:10", num_requests=7, turns=9, max_model_len=100)
    assert [request.prompt for request in workload.requests] == [20, 50, 80, 20, 50, 80, 20][:7]
    assert workload.first_turns == [0, 3, 6]


def test_of_conversations_the_first_turns_arrive() -> None:
    workload = make_workload("fixed:9", "fixed:4", num_requests=40, turns=2, rate=3.0)
    assert workload.name.startswith("3 conversations/s, ")
    arrivals = [workload.requests[index].at for index in workload.first_turns]
    assert arrivals == sorted(set(arrivals))
    assert {request.at for request in workload.requests if request.after is not None} == {0.0}
