"""What is written into the logs is what is read from them."""

from __future__ import annotations

from albireo.contract import codec
from albireo.contract.plan import SamplingParams, Submission


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
