"""The directory of a tier: what is evicted, what is pinned, and what a group may not report."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scheduler_svc.core import ProtocolError
from scheduler_svc.core.directory import TierDirectory

KEYS = [bytes([number]) * 16 for number in range(8)]


def filled(frames: int = 4) -> TierDirectory:
    """Frame n holds key n."""
    directory = TierDirectory(0, frames)
    for frame in range(frames):
        directory.reserve(frame, KEYS[frame])
    directory.fill()
    return directory


def test_free_frames_come_first_and_then_the_least_recently_used() -> None:
    directory = filled()
    directory.drop(2)
    directory.touch(KEYS[0])
    assert directory.next_frames(9) == [2, 1, 3, 0]
    assert directory.check({}) == []


def test_a_frame_that_is_spilled_to_loses_its_key_at_once_and_has_the_new_one_later() -> None:
    directory = filled()
    directory.reserve(1, KEYS[5])
    assert KEYS[1] not in directory
    assert directory.find(KEYS[5]) is None
    assert directory.will_have(KEYS[5])
    assert 1 not in directory.next_frames(4)
    directory.fill()
    assert directory.find(KEYS[5]) == 1
    assert directory.check({}) == []


def test_a_pinned_frame_is_not_written_even_if_it_holds_nothing_any_more() -> None:
    directory = filled(2)
    directory.pin(0)
    directory.pin(0)
    assert directory.next_frames(2) == [1]
    directory.drop(0)
    directory.unpin(0)
    assert KEYS[0] not in directory
    assert directory.next_frames(2) == [1]
    with pytest.raises(ProtocolError, match="in use"):
        directory.reserve(0, KEYS[6])
    directory.unpin(0)
    assert directory.next_frames(2) == [0, 1]
    assert directory.check({}) == []


def test_a_key_is_in_one_frame() -> None:
    directory = TierDirectory(0, 3)
    directory.add(0, KEYS[0])
    directory.add(2, KEYS[0])
    assert directory.find(KEYS[0]) == 0
    assert directory.next_frames(3) == [1, 2, 0]
    with pytest.raises(ProtocolError, match="already"):
        directory.reserve(1, KEYS[0])


def test_what_no_group_reports() -> None:
    directory = filled(2)
    with pytest.raises(ProtocolError, match="two things"):
        directory.add(0, KEYS[3])
    for frame in (-1, 2):
        with pytest.raises(ProtocolError, match="which has 2"):
            directory.drop(frame)
        with pytest.raises(ProtocolError, match="which has 2"):
            directory.add(frame, KEYS[3])


def test_the_check_finds_a_pin_that_is_none() -> None:
    directory = filled(2)
    directory.pin(0)
    assert directory.check({0: 1}) == []
    assert directory.check({})


def test_the_check_finds_frames_that_are_not_free_or_hold_something_else() -> None:
    faults: tuple[Callable[[TierDirectory], object], ...] = (
        lambda directory: directory._free.popitem(),
        lambda directory: directory._free.update({0: None}),
        lambda directory: directory._keys.__setitem__(0, None),
        lambda directory: directory._frames.update({KEYS[0]: 1}),
    )
    for fault in faults:
        directory = TierDirectory(0, 3)
        for frame in range(2):
            directory.add(frame, KEYS[frame])
        assert directory.check({}) == []
        fault(directory)
        assert directory.check({})
