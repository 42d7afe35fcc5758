"""Groups that come and go, in Redis and in memory."""

from __future__ import annotations

import pytest

from albireo.store.interface import CLOSED_LOG_SECONDS, LAST_STEP, EntryId, Fenced, GroupOpening, Store
from albireo.v1 import log_pb2 as log
from tests.albireo.store.conftest import KEYS, ME, PLANS, RESULTS, Backend, lead, open_logs

CLOSED = f"1-{LAST_STEP}"


def notices(store: Store) -> list[tuple[bytes, log.Notice]]:
    """Those behind the opening of epoch 1."""
    return [
        (entry_id, log.Notice.FromString(data)) for entry_id, data in store.log(KEYS.notices).read("1-0", 0)
    ]


def lasts(store: Store) -> list[str]:
    return [store.log(key).last() for key in (PLANS, RESULTS)]


def test_groups_are_registered_until_they_leave(store: Store) -> None:
    assert store.groups() == {}
    store.announce(KEYS.group("x"), b"info", ttl=60)
    for group in ("x", "x", "w"):
        store.register(group)
    assert list(store.groups().items()) == [("w", None), ("x", b"info")]
    for _ in range(2):
        store.leave("x")
    assert store.groups() == {"w": None}


def test_a_group_whose_announcement_expired_stays_registered(backend: Backend, store: Store) -> None:
    store.announce(KEYS.group("x"), b"info", ttl=0.03)
    store.register("x")
    backend.wait_until(lambda: store.groups() == {"x": None})


def test_a_group_is_opened_in_both_logs_and_the_notices(backend: Backend, store: Store) -> None:
    open_logs(store, name="fast")
    opening = log.GroupOpen(epoch=1, group="x", name="fast")
    [(plan_id, plan)] = store.log(PLANS).read("0-0", 0)
    [(result_id, result)] = store.log(RESULTS).read("0-0", 0)
    assert plan_id == result_id == b"1-0"
    assert log.PlanEntry.FromString(plan).open == opening
    assert log.ResultEntry.FromString(result).open == opening
    assert notices(store) == [(b"1-1", log.Notice(group_open=opening))]
    assert backend.scripts.members(KEYS.serving) == {"x"}


def test_a_group_is_closed_in_both_logs_and_the_notices(backend: Backend, store: Store) -> None:
    opening = open_logs(store)
    store.log(RESULTS, keep=10).append(EntryId(1, 7), b"r")
    store.close_group(opening, "it left", notice=5, lease_value=ME)
    [_, (plan_id, plan)] = store.log(PLANS).read("0-0", 0)
    [_, _, (result_id, result)] = store.log(RESULTS).read("0-0", 0)
    assert plan_id.decode() == result_id.decode() == CLOSED
    assert log.PlanEntry.FromString(plan).close.reason == "it left"
    assert log.ResultEntry.FromString(result).close.reason == "it left"
    closed = log.GroupClosed(group="x", name="g1", reason="it left")
    assert notices(store)[1:] == [(b"1-5", log.Notice(group_closed=closed))]
    assert backend.scripts.members(KEYS.serving) == backend.scripts.members(KEYS.groups) == set()


def test_logs_that_are_closed_take_no_entry_and_expire(backend: Backend, store: Store) -> None:
    opening = open_logs(store)
    store.close_group(opening, "", notice=2, lease_value=ME)
    for key in (PLANS, RESULTS):
        with pytest.raises(Fenced):
            store.log(key, keep=10).append(EntryId(1, 8), b"late")
        assert CLOSED_LOG_SECONDS - 5 < backend.scripts.seconds_left(key) <= CLOSED_LOG_SECONDS


def test_logs_of_a_group_that_left_expire_without_a_scheduler(backend: Backend, store: Store) -> None:
    open_logs(store)
    backend.scripts.delete(KEYS.lease)
    store.leave("x")
    for key in (PLANS, RESULTS):
        store.log(key, keep=10).append(EntryId(1, 8), b"late")
        assert CLOSED_LOG_SECONDS - 5 < backend.scripts.seconds_left(key) <= CLOSED_LOG_SECONDS


def test_a_group_that_left_is_closed_like_any(backend: Backend, store: Store) -> None:
    opening = open_logs(store)
    store.leave("x")
    assert backend.scripts.members(KEYS.serving) == {"x"}
    store.close_group(opening, "it left", notice=2, lease_value=ME)
    assert lasts(store) == [CLOSED, CLOSED]
    assert backend.scripts.members(KEYS.serving) == set()


def test_a_change_that_is_made_again_is_made_once(backend: Backend, store: Store) -> None:
    """The answer to the first attempt was lost."""
    opening = open_logs(store)
    store.open_group(opening, notice=1, lease_value=ME)
    assert lasts(store) == ["1-0", "1-0"]
    for _ in range(2):
        store.close_group(opening, "dead", notice=2, lease_value=ME)
    assert [entry_id for entry_id, _ in notices(store)] == [b"1-1", b"1-2"]
    assert [entry_id for entry_id, _ in store.log(PLANS).read("0-0", 0)] == [b"1-0", CLOSED.encode()]


def test_a_life_is_opened_once_an_epoch(store: Store) -> None:
    opening = open_logs(store)
    with pytest.raises(Fenced):
        store.open_group(opening, notice=2, lease_value=ME)
    assert len(notices(store)) == 1


def test_a_life_that_was_closed_is_over(backend: Backend, store: Store) -> None:
    opening = open_logs(store)
    store.close_group(opening, "", notice=2, lease_value=ME)
    with pytest.raises(Fenced):
        store.close_group(opening, "", notice=3, lease_value=ME)
    with pytest.raises(Fenced):
        store.register("x")
    store.open_epoch(lease_value=ME)
    opening = opening._replace(epoch=2)
    with pytest.raises(Fenced):
        store.open_group(opening, notice=1, lease_value=ME)
    with pytest.raises(Fenced):
        store.close_group(opening, "", notice=1, lease_value=ME)
    assert backend.scripts.members(KEYS.groups) == backend.scripts.members(KEYS.serving) == set()
    assert lasts(store) == [CLOSED, CLOSED]
    assert store.log(KEYS.notices).last() == "2-0"


def test_a_new_scheduler_opens_a_registered_group_in_the_same_logs(store: Store) -> None:
    open_logs(store)
    store.log(PLANS, keep=10).append(EntryId(1, 7), b"p")
    open_logs(store, name="other")
    assert [entry_id for entry_id, _ in store.log(PLANS).read("0-0", 0)] == [b"1-0", b"1-7", b"2-0"]
    assert lasts(store) == ["2-0", "2-0"]


def test_a_group_is_closed_that_was_not_opened_in_this_epoch(store: Store) -> None:
    """It died before this scheduler came."""
    open_logs(store)
    store.open_epoch(lease_value=ME)
    store.close_group(GroupOpening(2, "x", "g1"), "dead", notice=1, lease_value=ME)
    assert lasts(store) == [f"2-{LAST_STEP}"] * 2
    assert store.groups() == {}


def test_a_group_is_closed_whose_logs_are_gone(backend: Backend, store: Store) -> None:
    opening = open_logs(store)
    backend.scripts.delete_log(PLANS)
    backend.scripts.delete_log(RESULTS)
    store.close_group(opening, "dead", notice=2, lease_value=ME)
    assert lasts(store) == [CLOSED, CLOSED]  # its ranks read that they end
    assert CLOSED_LOG_SECONDS - 5 < backend.scripts.seconds_left(PLANS) <= CLOSED_LOG_SECONDS
    assert store.groups() == {}


@pytest.mark.parametrize(
    ("lease_value", "epoch", "notice"),
    [
        pytest.param(b"you", 2, 2, id="the lease of another"),
        pytest.param(ME, 1, 2, id="an epoch that is over"),
        pytest.param(ME, 3, 1, id="an epoch that was not opened"),
        pytest.param(ME, 2, 1, id="a notice that another has written"),
    ],
)
@pytest.mark.parametrize("change", ["open", "close"])
def test_only_the_scheduler_of_the_epoch_changes_its_groups(
    backend: Backend, store: Store, change: str, lease_value: bytes, epoch: int, notice: int
) -> None:
    lead(store)
    store.open_epoch(lease_value=ME)
    open_logs(store)
    store.register("y")
    opening = GroupOpening(epoch, "y", "g2")
    changes = {
        "open": lambda: store.open_group(opening, notice=notice, lease_value=lease_value),
        "close": lambda: store.close_group(opening, "", notice=notice, lease_value=lease_value),
    }
    with pytest.raises(Fenced):
        changes[change]()
    assert [store.log(key).last() for key in (KEYS.plans("y"), KEYS.results("y"))] == ["0-0", "0-0"]
    assert store.log(KEYS.notices).last() == "2-1"
    assert backend.scripts.members(KEYS.groups) == {"x", "y"}
    assert backend.scripts.members(KEYS.serving) == {"x"}


def test_a_lease_that_ran_out_and_is_free_does_not_end_the_epoch(backend: Backend, store: Store) -> None:
    """No lease can be renewed while the store stands still."""
    opening = open_logs(store)
    store.register("y")
    backend.scripts.delete(KEYS.lease)
    store.open_group(opening._replace(group="y"), notice=2, lease_value=ME)
    store.close_group(opening, "dead", notice=3, lease_value=ME)
    assert backend.scripts.members(KEYS.serving) == {"y"}


@pytest.mark.parametrize("key", [PLANS, RESULTS])
def test_a_log_that_has_come_further_leaves_all_as_it_was(backend: Backend, store: Store, key: str) -> None:
    opening = open_logs(store)
    store.log(key, keep=10).append(EntryId(2, 1), b"of a later epoch")
    before = lasts(store)
    with pytest.raises(Fenced):
        store.open_group(opening, notice=2, lease_value=ME)
    with pytest.raises(Fenced):
        store.close_group(opening, "", notice=2, lease_value=ME)
    assert lasts(store) == before
    assert store.log(KEYS.notices).last() == "1-1"
    assert backend.scripts.members(KEYS.groups) == backend.scripts.members(KEYS.serving) == {"x"}


def test_where_the_data_was_lost_no_group_is_opened_or_closed(backend: Backend, store: Store) -> None:
    opening = open_logs(store)
    backend.lose_data()
    lead(store)  # it takes its lease again
    with pytest.raises(Fenced):
        store.open_group(opening._replace(group="y"), notice=2, lease_value=ME)
    with pytest.raises(Fenced):
        store.close_group(opening, "", notice=2, lease_value=ME)
    assert store.get([KEYS.epoch]) == [None]
    assert lasts(store) == ["0-0", "0-0"]
