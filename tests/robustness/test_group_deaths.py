"""Groups of real processes that die, hang, drain and come back under load: no stream ends before its end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from albireo.v1 import control_pb2 as control
from albireo.v1 import inference_pb2 as api
from tests.stack import Answer, Running, ask, request, running_stack, wait_for
from tests.streams import rest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STREAMS = 6
FOUND_SECONDS = 6.0
"""Within so long a rank that is stopped or dead must be found, with default settings."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_stack(tmp_path_factory.mktemp("groups"), groups=2, tp=2) as running:
        yield running


def story(number: int) -> api.GenerateRequest:
    """A long request; every other one is sampled."""
    return request(
        "Tell me a story about a fox.",
        max_tokens=400,
        ignore_eos=True,
        temperature=number % 2,
        seed=number,
    )


class Streams:
    """Stories that run, each in a thread of its own."""

    def __init__(self, running: Running) -> None:
        self.answers: dict[int, Answer] = {}
        self._begun = threading.Semaphore(0)
        self._running = running
        self._threads = [threading.Thread(target=self._read, args=(i,), daemon=True) for i in range(STREAMS)]
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            assert self._begun.acquire(timeout=60)

    def _read(self, number: int) -> None:
        call = self._running.inference.Generate(story(number), timeout=120)
        first = [next(call), next(call), next(call)]
        self._begun.release()
        self.answers[number] = Answer([*first, *rest(call)])

    def wait(self) -> list[list[int]]:
        """The ids of each, in order. All have finished."""
        for thread in self._threads:
            thread.join(120)
        ends = {number: answer.kinds[-1] for number, answer in self.answers.items()}
        assert ends == dict.fromkeys(range(STREAMS), "finished")
        return [self.answers[number].ids for number in range(STREAMS)]


@pytest.fixture(scope="module")
def expected(stack: Running) -> list[list[int]]:
    """Ids of each story, where nothing happens."""
    return Streams(stack).wait()


def groups(running: Running) -> dict[str, control.GroupLoad]:
    """Those that the scheduler leads, by name."""
    return {group.name: group for group in running.load().groups}


def wait_groups(running: Running, *names: str) -> dict[str, control.GroupLoad]:
    """Waits until these groups serve, and no others."""
    wait_for(lambda: set(groups(running)) == set(names), 90, f"not these groups: {names}")
    return groups(running)


def check_idle(running: Running) -> None:
    load = running.wait_idle()
    assert list(load.integrity_violations) == []
    assert (load.slots_free, load.blocks_free) == (load.slots_total, load.blocks_total)


@pytest.mark.parametrize(
    ("rank", "number"),
    [
        pytest.param(0, signal.SIGKILL, id="0-killed"),
        pytest.param(1, signal.SIGSTOP, id="1-stopped"),
        pytest.param(0, signal.SIGSTOP, id="0-stopped"),
        pytest.param(1, signal.SIGKILL, id="1-killed"),
    ],
)
def test_streams_of_a_group_whose_rank_is_gone_go_on(
    stack: Running, expected: list[list[int]], number: signal.Signals, rank: int
) -> None:
    before = wait_groups(stack, "g0", "g1")["g0"].incarnation
    streams = Streams(stack)
    pid = stack.stack.units["g0"].pids[rank]
    os.kill(pid, number)
    wait_for(
        lambda: before not in {group.incarnation for group in stack.load().groups},
        FOUND_SECONDS,
        "the rank is not found",
    )
    assert streams.wait() == expected
    after = wait_groups(stack, "g0", "g1")
    assert after["g0"].incarnation != before
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), 10, "the stopped rank is still there")
    check_idle(stack)


def test_a_group_that_drains_hands_its_streams_over_and_another_may_come(
    stack: Running, expected: list[list[int]]
) -> None:
    wait_groups(stack, "g0", "g1")
    streams = Streams(stack)
    name = stack.stack.add_group()
    wait_groups(stack, "g0", "g1", name)
    stack.stack.remove_group("g1")
    assert streams.wait() == expected
    wait_groups(stack, "g0", name)
    stack.stack.remove_group(name)
    assert stack.stack.add_group() not in ("g1", name)
    check_idle(stack)


def test_a_model_scales_to_zero_and_back(tmp_path: Path) -> None:
    """Requests of a model without a group wait for one."""
    with running_stack(tmp_path) as running:
        expected = ask(running, story(1)).ids
        running.stack.remove_group("g0")
        wait_for(lambda: not running.load().groups, 10, "the group is still there")
        call = running.inference.Generate(story(1), timeout=90)
        wait_for(lambda: running.load().waiting == 1, 10, "the request does not wait")
        name = running.stack.add_group()
        answer = Answer(rest(call))
        assert answer.ids == expected
        assert set(groups(running)) == {name}
        check_idle(running)


def test_the_only_rank_of_a_group_that_is_stopped_is_replaced(tmp_path: Path) -> None:
    """No other process of the group ends, so that the supervisor must see by itself that it is lost."""
    with running_stack(tmp_path) as running:
        expected = ask(running, story(0)).ids
        call = running.inference.Generate(story(0), timeout=120)
        first = next(call)
        os.kill(running.stack.units["g0"].pids[0], signal.SIGSTOP)
        assert Answer([first, *rest(call)]).ids == expected
        check_idle(running)
