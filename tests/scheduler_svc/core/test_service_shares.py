"""Slots that tenants beyond their share of the service leave to the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.contract.plan import GroupShape, SamplingParams, Submission
from scheduler_svc.core import Limits, SchedulerCore
from scheduler_svc.core import service_shares as module
from scheduler_svc.core.service_shares import SERVICE_OF_A_SLOT, ServiceShares

SLOTS = 64


def test_a_tenant_that_is_alone_is_never_beyond_its_share() -> None:
    shares = ServiceShares()
    shares.slots = 4
    shares.enter("a")
    shares.charge("a", 1e9)
    assert not shares.exceeds("a")
    shares.enter("b")
    assert shares.exceeds("a")
    assert not shares.exceeds("b")
    shares.leave("b")
    assert not shares.exceeds("a")


def test_shares_are_by_weight() -> None:
    shares = ServiceShares()
    shares.slots = 1_000_000  # nothing decays
    for tenant in "ab":
        shares.enter(tenant)
    shares.charge("a", 100.0)
    shares.charge("b", 200.0)
    assert [shares.exceeds(tenant) for tenant in "ab"] == [False, True]
    shares.set_weights({"b": 3.0})
    assert [shares.exceeds(tenant) for tenant in "ab"] == [True, False]


def test_tenants_without_a_request_are_kept_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IDLE_TENANTS", 10)
    shares = ServiceShares()
    shares.slots = 1_000_000  # nothing decays
    for tenant in ("a", "b"):
        shares.enter(tenant)
        shares.charge(tenant, 100.0)
    shares.charge("b", 1.0)
    for number in range(100):
        shares.enter(f"t{number}")
        shares.charge(f"t{number}", 1.0)
        shares.leave(f"t{number}")
        assert len(shares._service) <= 10 + 3
    assert [shares.exceeds(tenant) for tenant in "ab"] == [False, True]


def test_service_of_long_ago_does_not_count() -> None:
    shares = ServiceShares()
    shares.slots = 1
    for tenant in "ab":
        shares.enter(tenant)
    shares.charge("a", 5 * SERVICE_OF_A_SLOT)
    for _ in range(1000):
        shares.charge("b", SERVICE_OF_A_SLOT / 100)
    assert [shares.exceeds(tenant) for tenant in "ab"] == [False, True]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(("enter", "leave", "charge"))), max_size=80)
)
def test_sums_are_those_of_the_tenants_that_are_there(moves: list[tuple[str, str]]) -> None:
    """Also when the scale begins anew; and so are the answers, counted by a list of all charges."""
    weights = {"a": 0.1, "b": 0.7}
    shares, live = ServiceShares(), dict.fromkeys("abc", 0)
    shares.slots, charges = 1, list[tuple[str, float]]()
    shares.set_weights(weights)
    for tenant, move in moves:
        if move == "enter":
            shares.enter(tenant)
            live[tenant] += 1
        elif live[tenant] and move == "leave":
            shares.leave(tenant)
            live[tenant] -= 1
        elif live[tenant]:
            shares.charge(tenant, 10 * SERVICE_OF_A_SLOT)
            charges.append((tenant, 10 * SERVICE_OF_A_SLOT))
        there = [name for name, count in live.items() if count]
        assert shares._sum_weights == pytest.approx(sum(weights.get(name, 1.0) for name in there))
        total = sum(shares._service.get(name, 0.0) for name in there)
        assert shares._sum_service == pytest.approx(total, rel=1e-6, abs=1e-3 * shares._scale)
        # Of charges this large only the last one of all counts.
        if len(there) > 1 and charges and charges[-1][0] in there:
            assert shares.exceeds(charges[-1][0])


def test_what_is_kept_of_tenants_that_are_gone_is_bounded() -> None:
    shares = ServiceShares()
    shares.slots = 1
    for number in range(2000):
        shares.enter(f"tenant-{number}")
        shares.charge(f"tenant-{number}", SERVICE_OF_A_SLOT)
        shares.leave(f"tenant-{number}")
    assert len(shares._service) < 100
    assert shares._scale <= module.LARGEST_SCALE


def submit(core: SchedulerCore, tenant: str, count: int, prompt: tuple[int, ...] = (1, 2, 3)) -> None:
    for _ in range(count):
        number = len(core._requests.live)
        sampling = SamplingParams(max_tokens=16, seed=0)
        core.submit(Submission(f"{tenant}{number}", prompt, sampling, tenant=tenant), 0.0)


def running(core: SchedulerCore, tenant: str) -> int:
    requests = core._requests.live.values()
    return sum(r.submission.tenant == tenant and r.occupancy is not None for r in requests)


def step(core: SchedulerCore) -> None:
    core.place()
    for group in core.groups.values():
        assert group.plan(0.0)


@pytest.mark.parametrize("slots", [SLOTS, 4 * SLOTS])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_flood_leaves_the_last_slots_of_each_group_to_a_tenant_that_comes_later(
    groups: int, slots: int
) -> None:
    """Also where the groups have more ``slots`` than the scheduler uses."""
    core = SchedulerCore(Limits(max_num_seqs=SLOTS, max_in_flight=4), epoch=1, salt=b"")
    for number in range(groups):
        core.join(f"g{number}", GroupShape(4 * slots, slots, 64))
    submit(core, "flood", groups * SLOTS // 2)
    step(core)
    submit(core, "quiet", 1)
    submit(core, "flood", 3 * SLOTS)
    step(core)
    step(core)  # the last slot for it only where the step prefills nothing yet
    kept = SLOTS // 32 * groups
    assert running(core, "quiet") == 1
    assert running(core, "flood") == groups * SLOTS - kept - 1
    submit(core, "late", 2 * kept)
    step(core)
    assert running(core, "flood") == groups * SLOTS - kept - 1
    assert running(core, "late") == kept
    assert not core.check_integrity()


@pytest.mark.parametrize(("slots", "kept"), [(1, 0), (15, 0), (16, 1), (47, 1), (48, 2), (64, 2), (256, 8)])
def test_so_many_slots_are_kept_from_tenants_beyond_their_share(slots: int, kept: int) -> None:
    limits = Limits(max_num_seqs=slots)
    assert [limits.open_to_all(free, 0) for free in (kept, kept + 1)] == [False, True]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("free", "admitted"), [(3, 0), (4, 1), (8, 3), (16, 7)])
def test_a_flood_prefills_less_at_once_the_fewer_slots_are_free(
    groups: int, free: int, admitted: int
) -> None:
    """Each free slot but the kept ones and its own lets it prefill half a chunk more in the same step: about
    half of the slots if its prompts have half a chunk."""
    limits = Limits(max_num_seqs=SLOTS, max_num_batched_tokens=8192, prefill_chunk=512)
    core = SchedulerCore(limits, epoch=1, salt=b"")
    for number in range(groups):
        core.join(f"g{number}", GroupShape(32 * SLOTS, SLOTS, 512))
    before = groups * (SLOTS - free - 1)
    submit(core, "flood", before)
    step(core)
    submit(core, "quiet", groups)
    core.place()
    submit(core, "flood", groups * SLOTS, prompt=tuple(range(1, 257)))
    step(core)
    assert running(core, "quiet") == groups
    assert running(core, "flood") == before + groups * admitted
    assert not core.check_integrity()


def test_requests_that_came_back_take_the_kept_slots_too() -> None:
    core = SchedulerCore(Limits(max_num_seqs=SLOTS, max_in_flight=4), epoch=1, salt=b"")
    groups = [core.join(f"g{number}", GroupShape(4 * SLOTS, SLOTS, 64)) for number in range(3)]
    submit(core, "flood", 3 * SLOTS // 2)
    step(core)
    submit(core, "quiet", 1)
    submit(core, "flood", 6 * SLOTS)
    step(core)
    step(core)
    assert [len(group.ledger.free_slots) for group in groups] == [2, 2, 2]
    core.leave(groups.pop(), died=False)
    core.place()
    for group in groups:
        group.plan(0.0)
    assert [len(group.ledger.free_slots) for group in groups] == [0, 0]
    assert not core.check_integrity()


def test_where_no_other_tenant_is_there_no_slot_is_left() -> None:
    core = SchedulerCore(Limits(max_num_seqs=SLOTS), epoch=1, salt=b"")
    core.join("g", GroupShape(4 * SLOTS, SLOTS, 64))
    submit(core, "one", 2 * SLOTS)
    step(core)
    assert running(core, "one") == SLOTS
    assert not core.check_integrity()
