"""What the logs say about tiers of KV is read as it was written."""

from __future__ import annotations

import pytest

from albireo.contract import codec, tier_codec
from albireo.contract.plan import Plan, StepResult
from albireo.contract.tiers import Contents, Fetch, Frames, Offload, Span, Spill, TierRead, TierShape
from albireo.v1 import log_pb2 as log

KEYS = (bytes(range(16)), bytes(16))


def test_a_plan_keeps_its_spills_and_fetches() -> None:
    plan = Plan(
        1,
        2,
        spills=(Spill(0, (3, 4), (0, 7), KEYS), Spill(1, (3,), (9,), KEYS[:1])),
        fetches=(Fetch(5, 1, (6, 8), (2, 1), KEYS),),
    )
    entry = codec.plan_from_bytes(codec.plan_to_bytes(plan))
    assert codec.plan_from_proto(1, 2, entry.plan) == plan


def test_a_plan_keeps_its_offloads_and_spans() -> None:
    plan = Plan(
        1,
        2,
        offloads=(Offload(5, 1, (6, 8), KEYS), Offload(2, 0, (1,), KEYS[1:])),
        spans=(Span(5, 320, 17, 0, 3), Span(2, 0, 1, 23, 24)),
    )
    entry = codec.plan_from_bytes(codec.plan_to_bytes(plan))
    assert codec.plan_from_proto(1, 2, entry.plan) == plan


def test_a_result_keeps_what_it_says_about_tiers() -> None:
    contents = (Contents(0, (1, 2), KEYS),)
    lost, read = (Frames(1, (5, 6)),), (TierRead(0, 3, 0.5),)
    message = log.StepResult(
        unfetched=[2**63],
        lost=tier_codec.lost_to_proto(lost),
        read=tier_codec.read_to_proto(read),
        contents=tier_codec.contents_to_proto(contents),
        contents_end=True,
    )
    assert codec.result_from_proto(1, 2, message) == StepResult(
        1, 2, unfetched=(2**63,), lost=lost, read=read, contents=contents, contents_end=True
    )


def test_a_group_announces_its_tiers() -> None:
    tiers = (TierShape("host", 10, 1e-5, 2e-5), TierShape("disk", 1000, 1e-4, 2e-4))
    assert tier_codec.shapes_from_proto(tier_codec.shapes_to_proto(tiers)) == tiers


@pytest.mark.parametrize(
    "plan",
    [
        log.Plan(spills=[log.Spill(blocks=[1, 2], frames=[1], keys=bytes(16))]),
        log.Plan(spills=[log.Spill(blocks=[1], frames=[1], keys=bytes(15))]),
        log.Plan(fetches=[log.Fetch(blocks=[1], frames=[1, 2], keys=bytes(32))]),
        log.Plan(fetches=[log.Fetch(blocks=[1], frames=[1], keys=bytes(32))]),
        log.Plan(offloads=[log.Offload(frames=[1], keys=bytes(32))]),
    ],
)
def test_parts_that_do_not_fit_are_refused(plan: log.Plan) -> None:
    with pytest.raises(ValueError, match="of a tier"):
        codec.plan_from_proto(1, 1, plan)


def test_contents_with_too_few_keys_are_refused() -> None:
    message = log.StepResult(contents=[log.Contents(frames=[1, 2], keys=bytes(16))])
    with pytest.raises(ValueError, match="of a tier"):
        codec.result_from_proto(1, 1, message)
