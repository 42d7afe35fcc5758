"""What a rank reads of the plan log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from albireo.contract import codec
from albireo.contract.plan import Grant, Plan
from albireo.store.interface import EntryId, Fenced
from albireo.v1 import log_pb2 as log
from albireo.virtual.clock import VirtualClock
from tests.worker_svc.stages.opened import GROUP, KEYS, OpenedGroup
from worker_svc.runner.interface import Runner
from worker_svc.stages.input_stage import InputStage, PlanGap

GOOD = codec.plan_to_bytes(Plan(1, 1, grants=(Grant(0, (1, 2)),)))
MORE_COUNTS = log.PlanEntry(plan=log.Plan(grant_slots=[0], grant_counts=[3], grant_blocks=[1, 2]))


class Prepares:
    """A runner that takes every plan."""

    def __init__(self) -> None:
        self.resets = 0

    def prepare(self, plan: Plan) -> None: ...

    def reset(self) -> None:
        self.resets += 1


class Scene:
    """An input stage and its scheduler."""

    def __init__(self, clock: VirtualClock) -> None:
        self.group = OpenedGroup(clock)
        self.plans = self.group.store.log(KEYS.plans(GROUP), keep=10)
        self.runner = Prepares()
        self.epochs = 0
        self.stage = InputStage(
            self.group.open_store,
            KEYS,
            clock,
            incarnation=GROUP,
            runner=cast("Runner[Any]", self.runner),
            on_epoch=self._on_epoch,
            until=lambda: False,
        )

    def _on_epoch(self) -> None:
        self.epochs += 1


@pytest.fixture
def scene() -> Iterator[Scene]:
    with VirtualClock() as clock:
        yield Scene(clock)


def test_a_plan_is_staged(scene: Scene) -> None:
    scene.plans.append(EntryId(1, 1), GOOD)
    assert not scene.stage.opened
    assert next(scene.stage.steps()).plan == Plan(1, 1, grants=(Grant(0, (1, 2)),))
    assert scene.stage.opened


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (MORE_COUNTS.SerializeToString(), "1 grants with 1 counts, 3 in all, and 2 blocks"),
        (b"", "neither a plan nor an opening"),
        (b"\xff\xff", "no valid message"),
    ],
    ids=["more counts than blocks", "empty", "no protobuf"],
)
def test_a_damaged_plan_is_one_error_that_names_it(scene: Scene, data: bytes, error: str) -> None:
    scene.plans.append(EntryId(1, 1), data)
    with pytest.raises(ValueError, match=f"^plan 1-1: {error}"):
        next(scene.stage.steps())


def test_a_plan_that_is_missing_is_noticed(scene: Scene) -> None:
    scene.plans.append(EntryId(1, 2), GOOD)
    with pytest.raises(PlanGap, match="plan 1-2 came where 1-1 was due"):
        next(scene.stage.steps())


def test_a_rank_that_came_too_late_for_its_opening_is_none(scene: Scene) -> None:
    scene.plans.append(EntryId(1, 1), GOOD)
    scene.plans.trim("1-1")
    with pytest.raises(PlanGap, match="plan 1-1 came where an opening was due"):
        next(scene.stage.steps())


def test_a_later_epoch_begins_anew_in_the_same_log(scene: Scene) -> None:
    scene.plans.append(EntryId(1, 1), GOOD)
    steps = scene.stage.steps()
    next(steps)
    assert scene.group.open() == 2
    scene.plans.append(EntryId(2, 1), GOOD)
    assert next(steps).plan.epoch == 2
    assert (scene.runner.resets, scene.epochs) == (2, 2)


def test_a_closed_group_takes_no_more_steps(scene: Scene) -> None:
    scene.plans.append(EntryId(1, 1), GOOD)
    scene.group.close("rank 1 is stopped")
    steps = scene.stage.steps()
    next(steps)
    with pytest.raises(Fenced, match="the scheduler has closed this group: rank 1 is stopped"):
        next(steps)
