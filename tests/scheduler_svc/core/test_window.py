"""How many plans may be in flight, by how long ranks waited for them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scheduler_svc.core import Window
from scheduler_svc.core.window import QUIET_STEPS_TO_SHRINK, RECENT_STEPS, WAITED_SECONDS, WAITS_TO_GROW

WAITED = 2 * WAITED_SECONDS
HANDED_OVER = WAITED_SECONDS / 2


def observe(window: Window, waits: list[float]) -> list[int]:
    """Sizes after each step."""
    sizes = []
    for seconds in waits:
        window.observe(seconds)
        sizes.append(window.size)
    return sizes


def test_it_grows_when_ranks_waited_in_several_recent_steps() -> None:
    window = Window(2, largest=5)
    assert observe(window, [WAITED] * WAITS_TO_GROW) == [2] * (WAITS_TO_GROW - 1) + [3]


def test_waits_that_lie_too_far_apart_do_not_grow_it() -> None:
    window = Window(2, largest=5)
    apart = [WAITED, *[HANDED_OVER] * (RECENT_STEPS // (WAITS_TO_GROW - 1))]
    assert set(observe(window, apart * 20)) == {2}


def test_waits_seen_at_the_old_size_do_not_count_at_the_new_one() -> None:
    window = Window(2, largest=9)
    sizes = observe(window, [WAITED] * 3 * WAITS_TO_GROW)
    assert [sizes.index(size) + 1 for size in (3, 4, 5)] == [WAITS_TO_GROW * n for n in (1, 2, 3)]


def test_a_hand_over_is_no_wait() -> None:
    assert set(observe(Window(2, largest=5), [0.0, HANDED_OVER, -1.0] * 200)) == {2}


def test_it_shrinks_after_a_long_quiet_time_and_not_below_its_first_size() -> None:
    window = Window(2, largest=5)
    observe(window, [WAITED] * 2 * WAITS_TO_GROW)
    assert window.size == 4
    sizes = observe(window, [HANDED_OVER] * 4 * QUIET_STEPS_TO_SHRINK)
    assert sizes.index(3) == QUIET_STEPS_TO_SHRINK - 1
    assert sizes.index(2) == 2 * QUIET_STEPS_TO_SHRINK - 1
    assert window.size == 2


def test_one_wait_begins_the_quiet_time_anew() -> None:
    window = Window(2, largest=5)
    observe(window, [WAITED] * WAITS_TO_GROW)
    quiet = [HANDED_OVER] * (QUIET_STEPS_TO_SHRINK - 1)
    assert set(observe(window, [*quiet, WAITED, *quiet])) == {3}
    assert observe(window, [HANDED_OVER]) == [2]


waits = st.lists(st.sampled_from([-1.0, 0.0, HANDED_OVER, WAITED, 1.0]), max_size=400)


@given(size=st.integers(1, 9), waits=waits)
def test_a_fixed_window_never_changes(size: int, waits: list[float]) -> None:
    assert set(observe(Window(size), waits)) <= {size}


@given(
    smallest=st.integers(1, 4),
    room=st.integers(0, 5),
    runs=st.lists(st.tuples(st.booleans(), st.integers(1, 600))),
)
def test_it_moves_by_one_within_its_bounds_and_grows_only_on_a_wait(
    smallest: int, room: int, runs: list[tuple[bool, int]]
) -> None:
    window = Window(smallest, largest=smallest + room)
    for waited, steps in runs:
        for _ in range(steps):
            before = window.size
            window.observe(WAITED if waited else HANDED_OVER)
            assert smallest <= window.size <= smallest + room
            assert window.size - before in ((0, 1) if waited else (0, -1))
