"""Groups come and go at random while requests run: none is lost, none is given twice, and nothing leaks."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.virtual.fleet import FleetOutcome, run
from tests.virtual.test_virtual_hour import alone

pytestmark = pytest.mark.timeout(300)  # a busy machine takes minutes for what takes seconds alone


@pytest.fixture(scope="module")
def outcome() -> FleetOutcome:
    """Groups of speeds 1 : 2 : 4 for a quarter of an hour; each lives for half a minute on average."""
    return run(1, 1000.0, rate=1.2)


def test_every_accepted_request_ends_exactly_once(outcome: FleetOutcome) -> None:
    assert len(outcome.answers) > 1000
    for answer in outcome.answers:
        assert answer.failed == ""
        expected = [] if answer.refused else list(range(answer.request.n))
        assert sorted(branch for branch, _ in answer.ends) == expected


def test_tokens_are_those_of_an_undisturbed_run(outcome: FleetOutcome) -> None:
    ends: Counter[str] = Counter()
    for answer in outcome.answers:
        for branch, reason in answer.ends:
            ends[reason] += 1
            expected = alone(answer, branch)
            if reason in ("STOP", "LENGTH"):
                assert answer.ids[branch] == expected
            else:
                assert answer.ids.get(branch, []) == expected[: len(answer.ids.get(branch, []))]
    assert ends["ERROR"] == 0
    assert ends["STOP"] + ends["LENGTH"] > 1000


def test_groups_end_in_all_ways_and_are_found_in_time(outcome: FleetOutcome) -> None:
    assert outcome.lives > 40
    assert set(outcome.closings) >= {
        "drained",
        "rank",
        "its",
    }  # a rank is silent; its announcement, its ranks
    assert max(outcome.found) <= 6.5  # the bound of 5 s, a second, and a beat


def test_nothing_is_left_at_the_end(outcome: FleetOutcome) -> None:
    load = outcome.load
    assert list(load.integrity_violations) == []
    assert (load.waiting, load.running, load.steps_in_flight) == (0, 0, 0)
    assert (load.slots_free, load.blocks_free) == (load.slots_total, load.blocks_total)
    assert len(load.groups) == 3
    assert outcome.waiting == b"0"


def test_the_seed_decides_every_byte_of_the_logs() -> None:
    first, second = run(2, 300.0), run(2, 300.0)
    assert first.entries > 1000
    assert first.digest == second.digest


def test_a_request_that_ends_every_group_it_runs_on_ends_with_an_error_and_no_other_does() -> None:
    def deadly(name: str) -> bool:
        return name.startswith(("r20-", "r60-"))

    outcome = run(5, 400.0, seconds_between=1e9, deadly=deadly)
    failed = [answer for answer in outcome.answers if answer.failed]
    assert len(failed) == 2
    assert all(deadly(answer.request.request_id) for answer in failed)
    others = [answer for answer in outcome.answers if answer not in failed]
    assert len(others) > 100
    for answer in others:
        for branch, reason in answer.ends:
            assert reason != "ERROR"
            if reason in ("STOP", "LENGTH"):
                assert answer.ids[branch] == alone(answer, branch)
    assert (
        outcome.lives == 3 + 2 * 3
    )  # each ends two groups with others in them, and one in which it is alone
    assert list(outcome.load.integrity_violations) == []
