"""Which group a waiting request goes to."""

from __future__ import annotations

from collections import Counter

import pytest

from albireo.contract.plan import GroupShape, SamplingParams, StepResult, Submission
from scheduler_svc.core import GroupCore, Limits, SchedulerCore, Speed

from .samples import prompt
from .world import World, world

SHAPE = GroupShape(64, 4, 256)


def homes(w: World) -> dict[str, list[str]]:
    """Groups in which each request was admitted, in this order."""
    found: dict[str, list[str]] = {}
    for name, group in w.groups.items():
        for plan in group.plans:
            for admission in plan.admissions:
                found.setdefault(admission.request_id, []).append(name)
    return found


def placed(core: SchedulerCore) -> dict[str, list[str]]:
    """Requests that are placed on each group."""
    return {
        name: [request.name for request in group.ledger.pending.placed] for name, group in core.groups.items()
    }


def submit(core: SchedulerCore, name: str, tokens: tuple[int, ...], *, max_tokens: int = 8) -> None:
    core.submit(Submission(name, tokens, SamplingParams(max_tokens=max_tokens, seed=0)), 0.0)


def core_with(
    *speeds: Speed, shape: GroupShape = SHAPE, limits: Limits | None = None
) -> tuple[SchedulerCore, list[GroupCore]]:
    core = SchedulerCore(limits or Limits(max_num_seqs=64), epoch=1, salt=b"")
    return core, [core.join(f"g{number}", shape, speed=speed) for number, speed in enumerate(speeds)]


def test_groups_of_one_speed_get_equally_many() -> None:
    w = world(groups=3)
    for number in range(12):
        w.submit(f"r{number}", prompt(10, number), max_tokens=6)
    w.drain(60)
    assert Counter(home[0] for home in homes(w).values()) == {"g0": 4, "g1": 4, "g2": 4}


def test_groups_of_speeds_one_to_four_get_as_they_can() -> None:
    speeds = [Speed(step_seconds=seconds, prefill_token_seconds=1e-6) for seconds in (0.04, 0.02, 0.01)]
    core, _ = core_with(*speeds, shape=GroupShape(640, 64, 256))
    for number in range(70):
        submit(core, f"r{number}", prompt(10, number))
    core.place()
    shares = [len(names) for names in placed(core).values()]
    assert sum(shares) == 70
    assert shares == [pytest.approx(share, abs=2) for share in (10, 20, 40)]


@pytest.mark.parametrize("looked_at", [False, True])
def test_a_group_that_joins_gets_its_share_though_it_has_run_alone_only(looked_at: bool) -> None:
    """The one that is there runs batches, next to others: its steps take more than five times as long."""
    shape = GroupShape(640, 64, 256)
    core, (old,) = core_with(Speed(step_seconds=0.0007), shape=shape)
    core.join("new", shape, speed=Speed(step_seconds=0.0007))
    if looked_at:  # before the other has become slow
        submit(core, "early", prompt(10, 99))
        core.place()
        core.cancel("early")
    for _ in range(100):
        old.speed.observe(0.004, 0)
    for number in range(8):
        submit(core, f"r{number}", prompt(10, number))
    core.place()
    assert [len(names) for names in placed(core).values()] == [4, 4]


def test_a_request_goes_where_its_prefix_is() -> None:
    w = world(groups=3, chunk=64)
    for number in range(3):
        w.submit(f"a{number}", prompt(50, number), max_tokens=2)
    w.drain(20)
    where = {name: home[0] for name, home in homes(w).items()}
    assert len(set(where.values())) == 3
    for number in (2, 0, 1):
        w.submit(f"b{number}", (*prompt(50, number), 1), max_tokens=2)
        w.step()
    w.drain(20)
    assert all(homes(w)[f"b{number}"] == [where[f"a{number}"]] for number in range(3))
    assert w.core.stats().prefix_hit_tokens == 3 * 48


def test_a_prefix_does_not_draw_more_load_than_the_bound() -> None:
    w = world(groups=2, chunk=64, tokens=256, max_seqs=8)
    w.submit("a", prompt(50), max_tokens=2)
    w.drain(20)
    for number in range(8):
        w.submit(f"b{number}", (*prompt(50), number + 1), max_tokens=4)
    w.step()
    shares = Counter(home[0] for name, home in homes(w).items() if name != "a")
    assert shares == {"g0": 5, "g1": 3}  # one request more than its part
    w.drain(40)


def test_branches_go_where_the_prompt_is_computed() -> None:
    w = world(groups=2, chunk=64, tokens=256, prefix_cache=False)
    w.submit("r", prompt(100), max_tokens=30, ignore_eos=True, n=2)
    w.step()
    w.step()
    w.step()
    assert homes(w) == {"r#0": ["g0"], "r#1": ["g0"]}
    assert w.core.stats().prefix_hit_tokens == 96
    w.drain(60)


def test_a_branch_that_finds_no_slot_next_to_the_others_computes_the_prompt_again() -> None:
    w = world(groups=2, chunk=64, tokens=256, max_seqs=2)
    w.submit("r", prompt(100), max_tokens=12, ignore_eos=True, n=4)
    w.drain(60)
    assert Counter(home[0] for home in homes(w).values()) == {"g0": 2, "g1": 2}


def test_waiting_tokens_of_prompts_count_in_the_expected_time() -> None:
    """One group is faster, but has a long prompt to compute first."""
    speed = {"step_seconds": 0.01, "prefill_token_seconds": 0.001}
    core, groups = core_with(Speed(**speed), Speed(**speed), limits=Limits(256, 64, prefill_chunk=16))
    submit(core, "long", prompt(200))
    core.place()
    groups[0].plan(0.0)
    submit(core, "a", prompt(10, 1))
    submit(core, "b", prompt(10, 2))
    core.place()
    assert placed(core) == {"g0": [], "g1": ["a", "b"]}


def test_a_request_goes_only_where_it_fits() -> None:
    core, _ = core_with(Speed(), shape=GroupShape(8, 4, 64))
    core.join("large", GroupShape(64, 4, 512))
    submit(core, "long", prompt(40), max_tokens=100)
    submit(core, "short", prompt(40, 1), max_tokens=10)
    core.place()
    assert placed(core) == {"g0": ["short"], "large": ["long"]}


def test_groups_that_can_hold_a_large_request_are_kept_for_it() -> None:
    """Later ones that would fit go only to groups that never could."""
    w = world(num_blocks=16, max_model_len=256, max_seqs=4, tokens=256, chunk=256)
    w.join("small", GroupShape(4, 4, 64))
    w.submit("a", prompt(150), max_tokens=20, ignore_eos=True)
    w.step()
    w.submit("large", prompt(200, 1), max_tokens=2, ignore_eos=True)
    for number in range(3):
        w.submit(f"r{number}", prompt(10, number + 2), max_tokens=2, ignore_eos=True)
        w.step()
    assert "large" not in homes(w)
    assert all(homes(w)[f"r{number}"] == ["small"] for number in range(3))
    w.submit("late", prompt(50, 7), max_tokens=60, ignore_eos=True)
    w.drain(100)
    assert homes(w)["large"] == ["g0"]
    order = [admission.request_id for plan in w.groups["g0"].plans for admission in plan.admissions]
    assert order == ["a", "large", "late"]


def test_what_a_plan_could_not_admit_is_placed_elsewhere() -> None:
    """Rows that run take the blocks between the placement and the plan."""
    w = world(groups=2, num_blocks=8, max_model_len=128, tokens=128, chunk=128, ahead=2)
    w.submit("a", prompt(60), max_tokens=60, ignore_eos=True)
    w.submit("b", prompt(60, 1), max_tokens=30, ignore_eos=True)
    w.submit("c", prompt(20, 2), max_tokens=30, ignore_eos=True)
    w.drain(200)
    assert w.stories["c"].final


def test_a_request_that_came_before_any_group_gets_the_first_ones_length() -> None:
    w = World(Limits(64, 4, 32, 1))
    w.submit("a", prompt(20), max_tokens=1000, ignore_eos=True)
    w.submit("long", prompt(70, 1), max_tokens=5)
    assert w.core.stats().groups == 0
    w.join("g0", GroupShape(4, 4, 64))
    w.drain(80)
    assert len(w.stories["a"].read) == 44
    assert [end.request_id for end in w.notices] == ["long"]


def test_a_length_is_the_same_in_every_group() -> None:
    w = world(max_model_len=64)
    w.submit("a", prompt(20), max_tokens=1000, ignore_eos=True)
    w.step()
    w.join("large", GroupShape(64, 4, 256))
    w.leave("g0")
    w.drain(80)
    assert len(w.stories["a"].read) == 44


def test_a_late_group_takes_what_waits() -> None:
    w = world(max_seqs=1)
    for number in range(3):
        w.submit(f"r{number}", prompt(10, number), max_tokens=30, ignore_eos=True)
    w.step()
    w.join("late", SHAPE)
    w.step()
    assert homes(w) == {"r0": ["g0"], "r1": ["late"]}
    w.drain(100)


def test_a_request_that_is_cancelled_where_it_is_placed_leaves_its_place_to_the_next() -> None:
    w = world(groups=2, max_seqs=1)
    for name in "abc":
        w.submit(name, prompt(10), max_tokens=5)
    w.place()
    assert placed(w.core) == {"g0": ["a"], "g1": ["b"]}
    w.cancel("b")
    w.notice()
    w.place()
    assert placed(w.core) == {"g0": ["a"], "g1": ["c"]}
    w.drain(20)


def test_results_give_the_group_its_speed() -> None:
    core, (group,) = core_with(Speed())
    submit(core, "a", prompt(10), max_tokens=30)
    core.place()
    for step in range(1, 20):
        assert group.plan(0.0)
        group.settle(StepResult(1, step, (0,), (1,), (5,), (0,)), 0.003)
    assert group.stats().step_seconds == pytest.approx(0.003)


def test_only_groups_that_have_something_to_do_are_touched() -> None:
    core, groups = core_with(Speed(), Speed())
    for group in groups:
        assert group.plan(0.0) is None
    assert core.touched == []
    submit(core, "a", prompt(10))
    core.place()
    assert core.touched == groups[:1]
    assert groups[0].plan(0.0)
    assert groups[0].touched
    while groups[0].plan(0.0):
        pass
    core.cancel("a")
    assert core.touched == groups[:1]
