"""The control plane for an hour of virtual time, or a part of it: every request ends once, and a seed decides
everything."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.scheduler_svc.core.worker_model import solo
from tests.virtual.cluster import SHAPE, Outcome, run
from tests.virtual.gateway import Answer, submission_of

pytestmark = pytest.mark.timeout(300)  # a busy machine takes minutes for what takes seconds alone

HOUR, PART, SHORT = 3600.0, 1200.0, 300.0
"""Seconds of virtual time."""
REQUESTS = 1200
"""In an hour there are more."""


@pytest.fixture(scope="module", params=[PART, pytest.param(HOUR, marks=pytest.mark.slow)])
def hour(request: pytest.FixtureRequest) -> Outcome:
    """A whole one takes about 15 seconds of processor time."""
    outcome = run(1, request.param)
    assert len(outcome.answers) > REQUESTS * request.param / HOUR
    return outcome


def test_every_accepted_request_ends_exactly_once(hour: Outcome) -> None:
    for answer in hour.answers:
        assert answer.failed == ""
        expected = [] if answer.refused else list(range(answer.request.n))
        assert sorted(branch for branch, _ in answer.ends) == expected


def test_all_kinds_of_ends_occur(hour: Outcome) -> None:
    ends = Counter(reason for answer in hour.answers for _, reason in answer.ends)
    assert set(ends) == {"STOP", "LENGTH", "CANCELLED", "DEADLINE"}
    assert {answer.refused for answer in hour.answers} == {"", "the queue is full"}


def test_what_a_request_brings_does_not_depend_on_the_others(hour: Outcome) -> None:
    for answer in hour.answers:
        for branch, reason in answer.ends:
            expected = alone(answer, branch)
            if reason in ("STOP", "LENGTH"):
                assert answer.ids[branch] == expected
            else:
                assert answer.ids.get(branch, []) == expected[: len(answer.ids.get(branch, []))]


def test_nothing_is_left_at_the_end(hour: Outcome) -> None:
    load = hour.load
    assert list(load.integrity_violations) == []
    assert (load.waiting, load.running, load.steps_in_flight) == (0, 0, 0)
    assert (load.slots_free, load.blocks_free) == (load.slots_total, load.blocks_total)
    assert hour.waiting == b"0"


def test_the_seed_decides_every_byte_of_the_logs() -> None:
    first, second, other = run(1, SHORT), run(1, SHORT), run(2, SHORT)
    assert first.entries > 1000
    assert first.digest == second.digest
    assert first.digest != other.digest


@pytest.mark.slow
def test_the_logs_do_not_depend_on_the_order_of_sets() -> None:
    """Python orders sets of strings by a seed of the process."""
    command = [sys.executable, "-m", "tests.virtual.cluster", "3", "150"]
    runs = [
        subprocess.Popen(
            command, env={**os.environ, "PYTHONHASHSEED": seed}, stdout=subprocess.PIPE, text=True
        )
        for seed in ("1", "2")
    ]
    first, second = (process.communicate(timeout=250)[0] for process in runs)
    assert len(first.strip()) == 64
    assert first == second


def alone(answer: Answer, branch: int) -> list[int]:
    """The ids of a branch where nothing else runs."""
    submission = submission_of(answer.request)[branch]
    return solo(submission.prompt, submission.sampling, SHAPE.max_model_len)[0]
