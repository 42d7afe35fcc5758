"""Requests that are longer than any group that is there takes."""

from __future__ import annotations

import pytest

from albireo.contract.plan import Finish, GroupShape

from .samples import prompt
from .test_leaving import die
from .world import world


@pytest.mark.parametrize("deaths", [0, 2])
def test_requests_that_no_group_can_hold_keep_no_others_waiting(deaths: int) -> None:
    """Also where they would run alone once there is a group for them."""
    w = world(groups=0, max_seqs=32, tokens=512)
    w.join("small", GroupShape(64, 32, 64))
    w.join("large", GroupShape(512, 32, 256))
    for number in range(18):
        w.submit(f"long{number}", prompt(10, number), max_tokens=60, ignore_eos=True)
    for _ in range(deaths):
        w.step()
        die(w, "large")
        w.join("large", GroupShape(512, 32, 256))
    w.leave("large")
    w.submit("short", prompt(10, 99), max_tokens=5, ignore_eos=True)
    for _ in range(10):
        w.step()
    assert w.stories["short"].final is Finish.LENGTH
    assert not any(w.stories[f"long{number}"].final for number in range(18))
    for number in range(2, 18):
        w.cancel(f"long{number}")
    w.join("large", GroupShape(512, 32, 256))
    w.drain(200)
    assert w.stories["long1"].final is Finish.LENGTH


def test_they_end_and_are_followed_as_others_that_wait() -> None:
    w = world(groups=0, followed=True)
    w.join("small", GroupShape(64, 4, 64))
    w.join("large", GroupShape(64, 4, 256))
    w.leave("large")
    w.submit("late", prompt(10), max_tokens=100, timeout_s=5.0)
    w.submit("cancelled", prompt(10, 1), max_tokens=100)
    w.submit("n", prompt(10, 2), max_tokens=60, ignore_eos=True, n=2)
    w.step()
    w.cancel("cancelled")
    w.cancel("n#0")
    w.leave("small")
    w.step()
    w.advance(6)
    w.step()
    w.promote()
    w.join("large", GroupShape(64, 4, 256))
    w.drain(200)
    finals = {name: story.final for name, story in w.stories.items()}
    ends = {"late": Finish.DEADLINE, "cancelled": Finish.CANCELLED, "n#0": Finish.CANCELLED}
    assert finals == {**ends, "n#1": Finish.LENGTH}
