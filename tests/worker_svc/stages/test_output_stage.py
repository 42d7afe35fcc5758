"""What rank 0 writes of a step, read back from the log."""

from __future__ import annotations

import numpy as np
from opentelemetry.trace import NoOpTracer

from albireo.contract import codec
from albireo.contract.keys import Keys
from albireo.contract.plan import Admission, Chunk, Ended, Finish, Plan, SamplingParams
from albireo.v1 import control_pb2 as control
from albireo.v1 import inference_pb2 as api
from albireo.v1 import log_pb2 as log
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from albireo.virtual.store import MemoryStore
from worker_svc.runner.interface import HostOutput
from worker_svc.stages.output_stage import OutputStage
from worker_svc.stages.step import ComputedStep

KEYS = Keys("m")


class Output:
    """A step that has run."""

    def __init__(self, host: HostOutput) -> None:
        self._host = host

    def to_host(self) -> HostOutput:
        return self._host

    def timestamps(self) -> list[int]:
        return [5, 6, 7]


def written(plan: Plan, host: HostOutput) -> log.StepResult:
    """The result of the first step of a log."""
    with VirtualClock() as clock:
        store = MemoryStore(Keyspace(clock), KEYS)
        stage = OutputStage(
            lambda: store,
            KEYS,
            clock,
            keep=10,
            max_seqs=4,
            eos_ids=frozenset({0}),
            max_model_len=100,
            tracer=NoOpTracer(),
        )
        stage.put(ComputedStep(plan, Output(host), control.StepTiming(fetched=3)), host)
        [(entry_id, data)] = store.log(KEYS.results).read("0-0", 0)
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
    assert codec.rows_of(result) == ((0, 2), (10, 12), (40, 0), (Finish.NONE, Finish.STOP))
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
