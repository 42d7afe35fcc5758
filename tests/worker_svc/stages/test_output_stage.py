"""What rank 0 writes of a step, read back from the log."""

from __future__ import annotations

import numpy as np
import pytest
from opentelemetry.trace import NoOpTracer

from albireo.contract import codec, result_rows
from albireo.contract.plan import Admission, Chunk, Ended, Finish, Plan, SamplingParams
from albireo.contract.tiers import Contents, Frames, TierRead
from albireo.store.interface import LAST_STEP, Fenced
from albireo.v1 import control_pb2 as control
from albireo.v1 import inference_pb2 as api
from albireo.v1 import log_pb2 as log
from albireo.virtual.clock import VirtualClock
from tests.worker_svc.stages.opened import GROUP, KEYS, OpenedGroup
from worker_svc.runner.interface import HostOutput
from worker_svc.runner.tier_report import TierReport
from worker_svc.stages.output_stage import OutputStage
from worker_svc.stages.step import ComputedStep


class Output:
    """A step that has run."""

    def __init__(self, host: HostOutput) -> None:
        self._host = host

    def to_host(self) -> HostOutput:
        return self._host

    def timestamps(self) -> list[int]:
        return [5, 6, 7]


def output_stage(group: OpenedGroup, clock: VirtualClock) -> OutputStage:
    return OutputStage(
        group.open_store,
        KEYS,
        clock,
        incarnation=GROUP,
        keep=10,
        max_seqs=4,
        eos_ids=frozenset({0}),
        max_model_len=100,
        tracer=NoOpTracer(),
    )


def written(plan: Plan, host: HostOutput) -> log.StepResult:
    """The result of the first step of a log."""
    with VirtualClock() as clock:
        group = OpenedGroup(clock)
        stage = output_stage(group, clock)
        stage.put(ComputedStep(plan, Output(host), control.StepTiming(fetched=3)), host)
        _, (entry_id, data) = group.store.log(KEYS.results(GROUP)).read("0-0", 0)
    assert entry_id == b"%d-%d" % (plan.epoch, plan.step)
    return codec.result_from_bytes(data).result


def test_a_result_holds_rows_ends_and_log_probabilities_of_the_rows_that_count() -> None:
    sampling = SamplingParams(max_tokens=9, seed=0, logprobs=1)
    plan = Plan(
        1,
        1,
        admissions=tuple(
            Admission(slot, 10 + slot, f"r{slot}", (7,) * 5, 0, 2 * slot, sampling) for slot in range(3)
        ),
        chunks=(Chunk(0, 0, 5), Chunk(1, 2, 3)),
        ended=(Ended("gone", Finish.CANCELLED),),
    )
    host = HostOutput(
        slots=np.array([0, 1, 2]),
        incarnations=np.array([10, 99, 12]),  # slot 1 is another's by now
        ids=np.array([40, 41, 0]),
        logprobs={1: api.TokenLogprobs(logprob=-1), 2: api.TokenLogprobs(logprob=-2)},
    )
    result = written(plan, host)
    assert result_rows.rows_of(result) == ((0, 2), (10, 12), (40, 0), (Finish.NONE, Finish.STOP))
    assert [(row.row, row.logprobs.logprob) for row in result.logprobs] == [(1, -2)]
    assert [(a.request_id, a.incarnation, a.num_cached) for a in result.admitted] == [
        ("r0", 10, 0),
        ("r1", 11, 2),
        ("r2", 12, 4),
    ]
    assert [(e.request_id, int(e.reason)) for e in result.ended] == [("gone", 3)]  # CANCELLED
    assert (result.prefill_tokens, result.wasted_rows, result.decodes) == (8, 1, 0)
    timing = result.timing
    assert (timing.fetched, timing.forward_begin, timing.sampling_begin, timing.sampling_end) == (3, 5, 6, 7)


def test_a_request_that_lacks_kv_has_no_row_nor_prompt_from_that_step_on() -> None:
    sampling = SamplingParams(max_tokens=9, seed=0)
    plan = Plan(
        1,
        1,
        admissions=tuple(
            Admission(slot, 10 + slot, f"r{slot}", (7,) * 20, 0, 16, sampling) for slot in (0, 1)
        ),
        chunks=(Chunk(0, 16, 4), Chunk(1, 16, 4)),
    )
    slots, incarnations = np.array([0, 1]), np.array([10, 11])
    transfer = control.KvTransfer(tier="disk", begin=1, end=2, bytes=3)
    report = TierReport(
        unfetched=(11,),
        lost=(Frames(1, (4, 5)),),
        read=(TierRead(0, 1, 0.5),),
        contents=(Contents(1, (6,), (b"k" * 16,)),),
        contents_end=True,
        transfers=(transfer,),
        kv_wait_ns=77,
        stream_wait_ns=7,
    )
    prompts = {10: (17, [api.TokenLogprobs(logprob=-1)]), 11: (17, [api.TokenLogprobs(logprob=-2)])}
    first = HostOutput(slots, incarnations, np.array([40, 41]), {}, prompts, tiers=report)
    with VirtualClock() as clock:
        group = OpenedGroup(clock)
        stage = output_stage(group, clock)
        stage.put(ComputedStep(plan, Output(first), control.StepTiming()), first)
        second = HostOutput(slots, incarnations, np.array([42, 43]), {}, prompts)
        stage.put(ComputedStep(Plan(1, 2, num_decodes=2), Output(second), control.StepTiming()), second)
        entries = group.store.log(KEYS.results(GROUP)).read("0-0", 0)
    found = [codec.result_from_bytes(data).result for _, data in entries[1:]]
    assert [result_rows.rows_of(result)[:3] for result in found] == [
        ((0,), (10,), (40,)),
        ((0,), (10,), (42,)),
    ]
    assert [[p.incarnation for p in result.prompt_logprobs] for result in found] == [[10], [10]]
    assert [list(result.unfetched) for result in found] == [[11], []]
    result = codec.result_from_proto(1, 1, found[0])
    assert (result.lost, result.read) == (report.lost, report.read)
    assert (result.contents, result.contents_end) == (report.contents, True)
    assert list(found[0].timing.transfers) == [transfer]
    assert (found[0].timing.kv_wait, found[0].timing.stream_wait) == (77, 7)


NO_ROWS = np.zeros(0, dtype=np.int64)
NOTHING = HostOutput(NO_ROWS, NO_ROWS, NO_ROWS, logprobs={})


def put(stage: OutputStage, epoch: int, step: int) -> None:
    stage.put(ComputedStep(Plan(epoch, step), Output(NOTHING), control.StepTiming()), NOTHING)


def test_a_result_that_comes_after_the_close_or_a_later_epoch_is_dropped() -> None:
    """The plans say what happened; the result's own refusal is no reason to end."""
    with VirtualClock() as clock:
        group = OpenedGroup(clock)
        stage, results = output_stage(group, clock), group.store.log(KEYS.results(GROUP))
        put(stage, 1, 1)
        group.open()
        put(stage, 1, 2)
        put(stage, 2, 1)
        group.close("it is stuck")
        put(stage, 2, 2)
        ids = [entry_id.decode() for entry_id, _ in results.read("0-0", 0)]
        assert ids == ["1-0", "1-1", "2-0", "2-1", f"2-{LAST_STEP}"]


def test_another_writer_of_the_same_step_fences_the_rank() -> None:
    with VirtualClock() as clock:
        group = OpenedGroup(clock)
        put(output_stage(group, clock), 1, 2)
        with pytest.raises(Fenced):
            put(output_stage(group, clock), 1, 1)
