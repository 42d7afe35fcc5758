"""What the core refuses, and what it says about its table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from albireo.contract.plan import (
    Ended,
    Finish,
    GroupShape,
    SamplingParams,
    StepResult,
    Submission,
    table_digest,
)
from scheduler_svc.core import Limits, ProtocolError, SchedulerCore, WaitingEnd

from .auditor import EPOCH
from .samples import prompt
from .worker_model import solo
from .world import world


@pytest.mark.parametrize(
    "limits",
    [
        Limits(max_num_batched_tokens=3, max_num_seqs=4),
        Limits(max_num_seqs=0),
        Limits(max_num_seqs=4, prefill_chunk=0),
        Limits(max_num_seqs=4, max_in_flight=0),
        Limits(max_num_seqs=4, digest_every=0),
        Limits(max_num_seqs=4, priority_seconds=-1.0),
    ],
)
def test_limits_that_make_no_sense(limits: Limits) -> None:
    with pytest.raises(ValueError, match=r"max_|priority"):
        SchedulerCore(limits, epoch=1, salt=b"").join("g", GroupShape(64, 4, 256))


def test_a_group_with_fewer_slots_than_the_limit_uses_them_all() -> None:
    core = SchedulerCore(Limits(max_num_batched_tokens=256), epoch=1, salt=b"")
    assert [core.join(f"g{n}", GroupShape(64, n, 256)).limits.max_num_seqs for n in (4, 300)] == [4, 256]


def test_two_groups_of_one_name_are_refused() -> None:
    core = SchedulerCore(Limits(), epoch=1, salt=b"")
    core.join("g", GroupShape(64, 4, 256))
    with pytest.raises(ValueError, match="a group g already"):
        core.join("g", GroupShape(64, 4, 256))


@pytest.mark.parametrize("shape", [GroupShape(15, 4, 241), GroupShape(4, 4, 1)])
def test_a_request_must_fit_alone(shape: GroupShape) -> None:
    with pytest.raises(ValueError, match="max_model_len"):
        SchedulerCore(Limits(max_num_seqs=4), epoch=1, salt=b"").join("g", shape)


@pytest.mark.parametrize(
    ("length", "max_tokens", "outputs"), [(0, 1, 0), (256, 1, 0), (10, 0, 0), (10, 4, 4), (250, 99, 6)]
)
def test_a_request_that_cannot_run(length: int, max_tokens: int, outputs: int) -> None:
    w = world(max_model_len=256)
    submission = Submission("a", prompt(length), SamplingParams(max_tokens=max_tokens, seed=0))
    with pytest.raises(ValueError, match="token"):
        w.core.submit(submission, 0.0, outputs=(1,) * outputs)
    assert not w.core.cancel("a")
    assert w.plan() is None


def test_what_was_not_taken_ends_with_an_error_in_the_next_notice() -> None:
    w = world(max_seqs=1, ahead=2)
    w.submit("a", prompt(10), max_tokens=9, ignore_eos=True)
    w.plan()
    w.core.refuse(Submission("long", prompt(300), SamplingParams(max_tokens=1, seed=0), n=2))
    assert w.core.take_departures() == 3
    w.core.refuse(Submission("a", (), SamplingParams(max_tokens=1, seed=0)))  # live: it goes on
    ended = (WaitingEnd("long#0", Finish.ERROR, 0), WaitingEnd("long#1", Finish.ERROR, 0))
    assert (w.core.take_ended(), w.core.take_ended()) == (ended, ())
    assert not w.core.cancel("long")
    w.check()


def test_what_a_gateway_left_ends_wherever_it_stands_and_nothing_else_does() -> None:
    core = SchedulerCore(Limits(max_num_seqs=2), epoch=1, salt=b"")
    group = core.join("g", GroupShape(64, 4, 256))
    sampling = SamplingParams(max_tokens=9, seed=0, ignore_eos=True)
    for name, gateway, n in (("a", "gone", 1), ("b", "there", 1), ("c", "gone", 3), ("d", "", 1)):
        core.submit(Submission(name, prompt(10), sampling, n=n, gateway=gateway), 0.0)
    core.place()
    assert group.plan(0.0) is not None  # "a" and "b" run, the others wait
    assert core.gateways() == {"gone", "there"}
    assert (core.abandon("gone"), core.abandon("gone")) == (4, 0)
    plan, waiting = group.plan(0.0), core.take_ended()
    assert plan is not None
    assert plan.ended == (Ended("a", Finish.CANCELLED),)
    assert waiting == tuple(WaitingEnd(f"c#{branch}", Finish.CANCELLED, 0) for branch in range(3))
    assert core.gateways() == {"there"}
    assert core.check_integrity() == []


def test_a_request_goes_on_where_an_earlier_epoch_left_it() -> None:
    w = world()
    w.submit("a", prompt(10), max_tokens=12, ignore_eos=True)
    expected, _ = solo(prompt(10), w.stories["a"].submission.sampling, 256)
    after = world()
    after.submit("a", prompt(10), max_tokens=12, ignore_eos=True)
    story = after.stories["a"]
    after.core.cancel("a")
    assert after.core.take_ended()
    after.core.submit(story.submission, after.now, outputs=tuple(expected[:5]))
    story.read = expected[:5]
    after.departures -= after.core.take_departures() - 1
    after.drain(10)
    assert after.plans[0].admissions[0].num_outputs == 5
    assert after.stories["a"].read == expected


def test_a_gap_is_an_error() -> None:
    w = world(ahead=2)
    w.submit("a", prompt(10), max_tokens=9, ignore_eos=True)
    w.plan()
    w.plan()
    with pytest.raises(ProtocolError, match="step 2"):
        w.group.core.settle(StepResult(EPOCH, 2))
    with pytest.raises(ProtocolError, match="step 3"):
        w.group.core.settle(StepResult(EPOCH, 3))
    w.drain(20)
    with pytest.raises(ProtocolError, match="published"):
        w.group.core.settle(StepResult(EPOCH, len(w.plans) + 1))


def test_a_length_end_that_the_worker_denies_is_an_error() -> None:
    w = world(ahead=2)
    w.submit("a", prompt(10), max_tokens=1)
    w.submit("b", prompt(10, 1), max_tokens=9)
    w.plan()
    w.plan()
    result = w.run()
    denied = replace(result, finishes=(int(Finish.NONE),) * len(result.finishes))
    with pytest.raises(ProtocolError, match="length"):
        w.group.core.settle(denied)


def test_a_finish_that_does_not_exist_is_an_error() -> None:
    w = world()
    w.submit("a", prompt(10), max_tokens=9)
    w.plan()
    result = w.run()
    with pytest.raises(ProtocolError, match="a finished with 99"):
        w.group.core.settle(replace(result, finishes=(99,)))


def test_old_results_and_those_of_other_epochs_are_dropped() -> None:
    w = world()
    w.submit("a", prompt(10), max_tokens=4, ignore_eos=True)
    w.step()
    before = w.core.stats()
    w.group.core.settle(w.settled[0])
    w.group.core.settle(StepResult(EPOCH, 0))
    w.group.core.settle(StepResult(EPOCH - 1, 2))
    w.group.core.settle(StepResult(EPOCH + 1, 2))
    assert w.core.stats() == before
    w.drain(10)


def test_rows_of_unknown_occupancies_are_dropped() -> None:
    w = world()
    w.submit("a", prompt(10), max_tokens=4, ignore_eos=True)
    w.plan()
    w.group.core.settle(StepResult(EPOCH, 1, (0, 3), (99, 98), (5, 5), (0, int(Finish.STOP))))
    assert w.core.stats().late_rows == 2
    assert w.core.stats().output_tokens == 0


def test_the_digest_is_of_the_table_after_the_step() -> None:
    w = world(chunk=32, digest_every=2)
    w.submit("a", prompt(40), max_tokens=9, ignore_eos=True)
    for _ in range(4):
        w.step()
    assert [plan.digest is not None for plan in w.plans] == [False, True, False, True]
    # Step 2 completes the prompt, steps 3 and 4 run a row each.
    assert w.plans[3].digest == table_digest([(0, 1, 42, 3, w.auditor.tables[0][-1])])
    w.drain(20)


def test_stats_add_up() -> None:
    w = world(max_seqs=1, ahead=2)
    w.submit("a", prompt(40), max_tokens=9, ignore_eos=True)
    w.submit("b", prompt(10, 1), max_tokens=9, ignore_eos=True)
    w.plan()
    stats = w.core.stats()
    assert (stats.step, stats.steps_in_flight, stats.waiting, stats.running) == (1, 1, 1, 1)
    assert (stats.slots_free, stats.slots_total, stats.blocks_free, stats.blocks_total) == (0, 1, 62, 64)
    w.drain(40)
    assert w.core.stats().output_tokens == 18
