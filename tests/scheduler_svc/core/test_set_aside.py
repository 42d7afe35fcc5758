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
