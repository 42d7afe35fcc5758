"""What a rank reads of the plan log."""

from __future__ import annotations

from typing import Any, cast

import pytest

from albireo.contract import codec
from albireo.contract.keys import Keys
from albireo.contract.plan import Grant, Plan
from albireo.store.interface import EntryId
from albireo.v1 import log_pb2 as log
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from albireo.virtual.store import MemoryStore
from worker_svc.runner.interface import Runner
from worker_svc.stages.input_stage import InputStage
from worker_svc.stages.step import StagedStep

KEYS = Keys("m")
GOOD = codec.plan_to_bytes(Plan(1, 1, grants=(Grant(0, (1, 2)),)))
MORE_COUNTS = log.PlanEntry(plan=log.Plan(grant_slots=[0], grant_counts=[3], grant_blocks=[1, 2]))


class Prepares:
    """A runner that takes every plan."""

    def prepare(self, plan: Plan) -> None: ...

    def reset(self) -> None: ...


def first_step(data: bytes) -> StagedStep:
    """The step of the first plan of an epoch."""
    with VirtualClock() as clock:
        store = MemoryStore(Keyspace(clock), KEYS)
        plans = store.log(KEYS.plans, keep=10)
        opening = log.EpochOpen(epoch=1, group_incarnation="group")
        plans.append(EntryId(1, 0), log.PlanEntry(open=opening).SerializeToString())
        plans.append(EntryId(1, 1), data)
        stage = InputStage(
            lambda: store,
            KEYS,
            clock,
            incarnation="group",
            after="0-0",
            runner=cast("Runner[Any]", Prepares()),
            on_epoch=lambda: None,
            stop=clock.event(),
        )
        return next(stage.steps())


def test_a_plan_is_staged() -> None:
    assert first_step(GOOD).plan == Plan(1, 1, grants=(Grant(0, (1, 2)),))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (MORE_COUNTS.SerializeToString(), "1 grants with 1 counts, 3 in all, and 2 blocks"),
        (b"", "neither a plan nor an opening"),
        (b"\xff\xff", "no valid message"),
    ],
    ids=["more counts than blocks", "empty", "no protobuf"],
)
def test_a_damaged_plan_is_one_error_that_names_it(data: bytes, error: str) -> None:
    with pytest.raises(ValueError, match=f"^plan 1-1: {error}"):
        first_step(data)
