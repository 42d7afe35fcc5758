"""What is written into the logs is what is read from them."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.contract import codec, result_rows
from albireo.contract.plan import (
    Admission,
    Chunk,
    Ended,
    Finish,
    Grant,
    Plan,
    SamplingParams,
    StepResult,
    Submission,
)
from albireo.v1 import inference_pb2 as api
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
    rows = result_rows.Rows((0, 1023), (1, 2**63), (0, 2**32 - 1), (Finish.NONE, Finish.ERROR))
    entry = log.ResultEntry(result=log.StepResult(**result_rows.columns(*rows)))
    read = codec.result_from_bytes(entry.SerializeToString())
    assert result_rows.rows_of(read.result) == rows
    assert codec.result_from_proto(3, 4, read.result) == StepResult(3, 4, *rows)
    plan = Plan(3, 4, grants=(Grant(7, (1, 2)), Grant(0, ()), Grant(2, (2**31,))), num_decodes=1)
    assert codec.plan_from_proto(3, 4, codec.plan_from_bytes(codec.plan_to_bytes(plan)).plan) == plan


@pytest.mark.parametrize(
    "plan",
    [
        Plan(3, 4),
        Plan(3, 4, grants=(Grant(7, (1,)), Grant(0, (5,))), num_decodes=2, digest=0),
        Plan(
            3,
            4,
            released=(1,),
            paused=(2, 0),
            resumed=(3,),
            admissions=(Admission(5, 2**63, "r#1", (7, 8), 1, 0, SamplingParams(5, 9, stop_ids=(4,))),),
            chunks=(Chunk(5, 0, 2),),
            ended=(Ended("s", Finish.CANCELLED),),
        ),
    ],
)
def test_plans_survive_the_wire(plan: Plan) -> None:
    assert codec.plan_from_proto(3, 4, codec.plan_from_bytes(codec.plan_to_bytes(plan)).plan) == plan


def test_the_rows_that_end_are_found() -> None:
    result = log.StepResult(**result_rows.columns([0, 1, 2], [9, 2**63, 4], [5, 6, 7], [0, Finish.STOP, 0]))
    assert result_rows.incarnations_of(result) == (9, 2**63, 4)
    assert result_rows.ends_of(result) == [(2**63, Finish.STOP)]
    assert result_rows.ends_of(log.StepResult(**result_rows.columns([0], [9], [5], [0]))) == []


@pytest.mark.parametrize("short", ["slots", "incarnations", "ids", "finishes"])
def test_columns_of_different_lengths_are_refused(short: str) -> None:
    result = log.StepResult(**result_rows.columns([0, 1], [1, 2], [5, 6], [0, 0]))
    setattr(result, short, getattr(result, short)[:-1])
    with pytest.raises(ValueError, match="rows with columns of"):
        codec.result_from_bytes(log.ResultEntry(result=result).SerializeToString())


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"grant_slots": [7]}, "3 grants with 2 counts, 3 in all, and 3 blocks"),
        ({"grant_counts": [0]}, "2 grants with 3 counts, 3 in all, and 3 blocks"),
        ({"grant_counts": [4], "grant_slots": [7]}, "3 grants with 3 counts, 7 in all, and 3 blocks"),
        ({"grant_blocks": [9]}, "2 grants with 2 counts, 3 in all, and 4 blocks"),
    ],
)
def test_grants_whose_counts_are_not_their_blocks_are_refused(
    change: dict[str, list[int]], error: str
) -> None:
    plan = Plan(3, 4, grants=(Grant(7, (1, 2)), Grant(0, (5,))))
    message = codec.plan_from_bytes(codec.plan_to_bytes(plan)).plan
    message.MergeFrom(log.Plan(**change))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"^{error}$"):
        codec.plan_from_proto(3, 4, message)


@pytest.mark.parametrize("data", [b"", b"\xff\xff"])
def test_an_entry_that_is_no_plan_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"neither a plan nor an opening|no valid message"):
        codec.plan_from_bytes(data)


def test_biases_that_are_not_as_many_as_their_tokens_are_refused() -> None:
    sampling = log.Sampling(max_tokens=1, bias_ids=[3, 4], biases=[0.5])
    entry = log.InboxEntry(submission=log.Submission(request_id="r", prompt=[1], sampling=sampling))
    with pytest.raises(ValueError, match="2 token ids with 1 biases"):
        codec.inbox_from_bytes(entry.SerializeToString())


SHORT = api.TokenLogprobs(logprob=-1.0, top_ids=[3, 4], top_logprobs=[-1.0])


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"logprobs": [log.RowLogprobs(row=2)]}, "2 rows with log-probabilities of row 2"),
        ({"logprobs": [log.RowLogprobs(row=0, logprobs=SHORT)]}, "differ in number"),
        ({"prompt_logprobs": [log.PromptLogprobs(incarnation=1, start=1, logprobs=[SHORT])]}, "differ in"),
    ],
    ids=["no such row", "of a row", "of a prompt"],
)
def test_log_probabilities_that_do_not_fit_their_rows_are_refused(fields: dict[str, Any], error: str) -> None:
    result = log.StepResult(**result_rows.columns([0, 1], [1, 2], [5, 6], [0, 0]), **fields)
    with pytest.raises(ValueError, match=error):
        codec.result_from_bytes(log.ResultEntry(result=result).SerializeToString())
