"""The check of the scheduler's state that the published load carries: one group with each message."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from albireo.contract.plan import GroupShape, SamplingParams, StepResult, Submission
from albireo.v1 import control_pb2 as control
from scheduler_svc.core import GroupCore, Limits, SchedulerCore, TierStats
from scheduler_svc.telemetry.group_report import GroupReport
from scheduler_svc.telemetry.load import LoadReport


class Scene:
    def __init__(self) -> None:
        self.core = SchedulerCore(Limits(max_num_seqs=1), epoch=1, salt=b"")
        self.groups = [self.core.join(f"g{number}", GroupShape(16, 1, 64)) for number in range(3)]
        self._report = LoadReport()

    def begin(self, name: str) -> None:
        """A request starts in the first group."""
        self.core.submit(Submission(name, (1, 2), SamplingParams(max_tokens=1, seed=0)), 0.0)
        self.core.place()
        assert self.groups[0].plan(0.0)

    def finish(self) -> None:
        """It ends with the step in flight, and its slot is released."""
        group = self.groups[0]
        step, [occupancy] = group.ledger.step, group.ledger.receiving.values()
        group.settle(StepResult(1, step, (occupancy.slot,), (occupancy.incarnation,), (7,), (2,)))
        if group.plan(0.0):
            group.settle(StepResult(1, step + 1))

    def load(self) -> control.Load:
        return self._report.message(1, self.core, self.core.stats(), [], wait_seconds=0.0)


def damage(group: GroupCore) -> None:
    group.ledger.pool.take(group.ledger.pool.next_free(1))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_it_is_made_when_all_groups_are_idle_one_group_at_a_time(scene: Scene) -> None:
    scene.begin("a")
    assert scene.load().integrity_checked_step == 0  # it runs
    scene.finish()
    damage(scene.groups[2])
    steps = scene.core.stats().step
    assert [scene.load().integrity_checked_step for _ in range(3)] == [0, 0, steps]
    [wrong] = scene.load().integrity_violations
    assert wrong.startswith("group g2: block 0")


def test_only_groups_that_have_run_since_are_checked_again(scene: Scene) -> None:
    scene.begin("a")
    scene.finish()
    damage(scene.groups[0])
    assert len(scene.load().integrity_violations) == 1  # as soon as it is found
    assert [scene.load().integrity_checked_step for _ in range(2)][1] == scene.core.stats().step
    scene.groups[0].ledger.pool.drop([0])
    damage(scene.groups[1])  # which makes no step
    scene.begin("b")
    scene.finish()
    load = scene.load()
    assert load.integrity_checked_step == scene.core.stats().step
    assert list(load.integrity_violations) == []


def test_a_check_ends_though_groups_run_in_between(scene: Scene) -> None:
    damage(scene.groups[2])
    for name in "abcdef":  # one message between two requests
        scene.begin(name)
        scene.finish()
        scene.load()
    [wrong] = scene.load().integrity_violations
    assert wrong.startswith("group g2: block 0")


def test_a_group_reports_its_tiers(scene: Scene) -> None:
    tier = TierStats("disk", 10, 4, 1, 2, 3, 4, 5)
    stats = replace(scene.groups[0].stats(), tiers=(tier,), streamed=3, streamed_blocks=40)
    group = GroupReport("g0", "0a", "cpu", 1, stats, look_ahead=1, beat_age=0.0, ranks=[])
    load = LoadReport().message(1, scene.core, scene.core.stats(), [group], wait_seconds=0.0)
    assert (load.groups[0].streamed, load.groups[0].streamed_blocks) == (3, 40)
    [found] = load.groups[0].tiers
    assert {field.name: value for field, value in found.ListFields()} == asdict(tier)
