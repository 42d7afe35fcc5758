"""Where a stack's groups are on their machine, and which groups are lost."""

from __future__ import annotations

from albireo.local.group_units import LOST_SECONDS, GroupPlaces, LostGroups

LATER = LOST_SECONDS + 0.1


def test_groups_have_ranks_of_their_own() -> None:
    places = GroupPlaces()
    assert [places.take(tp) for tp in (2, 1, 2)] == [("g0", 0), ("g1", 2), ("g2", 3)]
    assert (places.ranks, places.names) == (5, ["g0", "g1", "g2"])


def test_a_place_is_taken_again_and_a_name_is_not() -> None:
    places = GroupPlaces()
    for tp in (1, 2, 1):
        places.take(tp)
    places.free("g1")
    assert places.take(1) == ("g3", 1)
    assert places.take(2) == ("g4", 4)  # between the others there is one left
    assert places.ranks == 5


def test_a_group_that_is_not_registered_any_more_is_lost_once() -> None:
    lost = LostGroups()
    started = {"g0": 0.0, "g1": 0.0}
    assert lost.look({"a": "g0", "b": "g1"}, started, 1) == []
    assert lost.look({"b": "g1"}, started, LOST_SECONDS) == []
    assert lost.look({"b": "g1"}, started, 1 + LATER) == ["g0"]
    assert lost.look({"b": "g1"}, started, 1 + 2 * LATER) == []


def test_a_group_that_was_started_again_may_take_its_time() -> None:
    lost = LostGroups()
    lost.look({"a": "g0"}, {"g0": 0}, 1)
    assert lost.look({"a": "g0"}, {"g0": 2}, 3) == []  # its earlier life has not expired yet
    assert lost.look({}, {"g0": 2}, 3 + LATER) == []


def test_a_group_that_was_never_registered_or_was_removed_is_not_lost() -> None:
    lost = LostGroups()
    assert lost.look({}, {"g0": 0}, 100) == []
    lost.look({"a": "g0"}, {"g0": 0}, 100)
    assert lost.look({}, {}, 100 + LATER) == []


def test_what_is_not_known_is_not_lost() -> None:
    lost = LostGroups()
    lost.look({"a": "g0"}, {"g0": 0}, 1)
    lost.pause(LATER)
    assert lost.look({}, {"g0": 0}, 1 + LATER) == []
