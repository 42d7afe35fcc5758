"""Steps read from the logs of a group."""

from __future__ import annotations

import pytest

from albireo.contract import codec
from albireo.contract.keys import Keys
from albireo.contract.plan import Admission, Chunk, Grant, GroupShape, Plan, SamplingParams
from albireo.planning.calibration.steps import StepReader
from albireo.store.interface import EntryId
from albireo.v1 import control_pb2 as control
from albireo.v1 import log_pb2 as log
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from albireo.virtual.store import MemoryStore
from worker_svc.batch.slot_table import SlotTable
from worker_svc.cost.work import StepWork
from worker_svc.sampling.layout import SamplingPolicy

KEYS = Keys("m")
GROUP = "0a"
PLANS, RESULTS = KEYS.plans(GROUP), KEYS.results(GROUP)
SHAPE = GroupShape(num_blocks=16, max_seqs=4, max_model_len=128)
MS = 1_000_000
"""Timestamps are in ns."""


def _plans() -> list[Plan]:
    """A prompt of 20 tokens in two chunks, then two steps that decode."""
    admission = Admission(
        0, 1, "r", tuple(range(20)), 0, 0, SamplingParams(max_tokens=8, seed=0, temperature=0)
    )
    return [
        Plan(1, 1, admissions=(admission,), grants=(Grant(0, (0, 1)),), chunks=(Chunk(0, 0, 12),)),
        Plan(1, 2, chunks=(Chunk(0, 12, 8),)),
        Plan(1, 3, num_decodes=1),
        Plan(1, 4, num_decodes=1),
    ]


def _timing(step: int) -> control.StepTiming:
    """Steps of 10 ms; each is planned, staged and put out while the one before runs."""
    begin = (1000 + 10 * step) * MS
    return control.StepTiming(
        plan_begin=begin - 9 * MS,
        previous_published=begin - 18 * MS,
        fetched=begin - 7 * MS,
        staged=begin - 4 * MS,
        forward_begin=begin,
        sampling_begin=begin + 6 * MS,
        sampling_end=begin + 9 * MS,
        output_begin=begin + 9 * MS,
        previous_appended=begin + MS,
    )


def _append(space: Keyspace, plans: list[Plan]) -> None:
    store = MemoryStore(space, KEYS)
    for key, opening in ((PLANS, log.PlanEntry), (RESULTS, log.ResultEntry)):
        writer = store.log(key, keep=100)
        if writer.last() == "0-0":
            space.append(key, EntryId(1, 0), opening(open=log.GroupOpen(epoch=1)).SerializeToString())
        for plan in plans:
            if key == PLANS:
                data = codec.plan_to_bytes(plan, _timing(plan.step))
            else:
                result = log.StepResult(timing=_timing(plan.step))
                data = log.ResultEntry(result=result).SerializeToString()
            writer.append(EntryId(1, plan.step), data)


def _reader(space: Keyspace) -> StepReader:
    return StepReader(MemoryStore(space, KEYS), KEYS, GROUP, SlotTable(SHAPE, 1000), SamplingPolicy())


def test_each_step_comes_with_what_it_computed() -> None:
    with VirtualClock() as clock:
        space = Keyspace(clock)
        _append(space, _plans())
        steps = _reader(space).read("load")
    assert [step.work for step in steps] == [
        StepWork(prefill=12, prefill_pairs=78),
        StepWork(prefill=8, prefill_pairs=sum(range(13, 21)), greedy=1),
        StepWork(decodes=1, context=21, greedy=1),
    ]
    assert {step.load for step in steps} == {"load"}


def test_the_parts_of_a_step_are_differences_of_its_timestamps() -> None:
    with VirtualClock() as clock:
        space = Keyspace(clock)
        _append(space, _plans())
        first, second, _ = _reader(space).read("load")
    assert first.gap is None  # nothing ran before it
    times = (second.t1, second.t2, second.t3, second.t4, second.t5, second.gap)
    assert times == pytest.approx((0.001, 0.003, 0.006, 0.003, 0.002, 0.001))


def test_a_later_read_goes_on_where_the_last_one_ended() -> None:
    with VirtualClock() as clock:
        space = Keyspace(clock)
        reader = _reader(space)
        _append(space, _plans()[:2])
        first = reader.read("first")
        _append(space, _plans()[2:])
        second = reader.read("second")
    assert [step.work.prefill for step in first] == [12]
    assert [step.work for step in second] == [StepWork(decodes=1, context=21, greedy=1)]


def test_no_steps_are_no_measurements() -> None:
    with VirtualClock() as clock:
        assert _reader(Keyspace(clock)).read("load") == []
