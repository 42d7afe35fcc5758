"""What is written into the logs is what is read from them."""

from __future__ import annotations

import pytest

from albireo.contract import codec
from albireo.contract.plan import Finish, Grant, Plan, SamplingParams, StepResult, Submission
from albireo.v1 import log_pb2 as log


def test_entries_survive_the_wire() -> None:
    submission = Submission(
        "r",
        (0, 2**31),
        SamplingParams(
            max_tokens=5,
            seed=2**64 - 1,
            min_tokens=1,
            temperature=0.5,
            top_k=3,
            top_p=0.25,
            min_p=0.125,
            stop_ids=(4, 5),
            ignore_eos=True,
            logprobs=0,
            prompt_logprobs=20,
            typical_p=0.75,
            repetition_penalty=1.5,
            presence_penalty=-2.0,
            frequency_penalty=0.25,
            logit_bias=((3, -100.0), (2**31, 0.5)),
            allowed_ids=(7, 8),
            bad_ids=(9,),
        ),
        priority=-3,
        timeout_s=1.5,
        n=16,
    )
    assert codec.inbox_from_bytes(codec.submission_to_bytes(submission)) == submission
    assert codec.inbox_from_bytes(codec.cancellation_to_bytes("r")) == "r"


def test_rows_and_grants_survive_the_wire() -> None:
    rows = codec.Rows((0, 1023), (1, 2**63), (0, 2**32 - 1), (Finish.NONE, Finish.ERROR))
    entry = log.ResultEntry(result=log.StepResult(**codec.columns(*rows)))
    read = codec.result_from_bytes(entry.SerializeToString())
    assert codec.rows_of(read.result) == rows
    assert codec.result_from_proto(3, 4, read.result) == StepResult(3, 4, *rows)
    plan = Plan(3, 4, grants=(Grant(7, (1, 2)), Grant(0, ()), Grant(2, (2**31,))), num_decodes=1)
    assert codec.plan_from_proto(3, 4, log.PlanEntry.FromString(codec.plan_to_bytes(plan)).plan) == plan


@pytest.mark.parametrize("short", ["slots", "incarnations", "ids", "finishes"])
def test_columns_of_different_lengths_are_refused(short: str) -> None:
    result = log.StepResult(**codec.columns([0, 1], [1, 2], [5, 6], [0, 0]))
    setattr(result, short, getattr(result, short)[:-1])
    with pytest.raises(ValueError, match="rows with columns of"):
        codec.result_from_bytes(log.ResultEntry(result=result).SerializeToString())
