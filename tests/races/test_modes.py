"""Whole stacks: overlap changes no token, and a simulated device says that it is one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from albireo.v1 import inference_pb2 as api
from tests.races.fake_scheduler import tokens
from tests.stack import Answer, Running, ask, request, running_stack

PROMPTS = ["What is 37 + 45?", "Tell me a story about a fox.", "Count on from 12.", "Tell me a story. " * 12]


def messages() -> list[api.GenerateRequest]:
    """12 requests, greedy and seeded, short and long; some end by themselves."""
    found = []
    for number in range(12):
        text = PROMPTS[number % len(PROMPTS)]
        length = 6 + 4 * number
        if number < len(PROMPTS):
            found.append(request(text, max_tokens=40))
        elif number % 2:
            found.append(request(text, max_tokens=length, temperature=0.9, seed=number, top_p=0.9))
        else:
            found.append(request(text, max_tokens=length, temperature=1.0, seed=number, ignore_eos=True))
    return found


def ask_all(running: Running) -> list[Answer]:
    """All at once, so that they share their steps."""
    with ThreadPoolExecutor(12) as pool:
        return list(pool.map(lambda message: ask(running, message), messages()))


@pytest.mark.slow
def test_synchronous_and_overlapped_bring_identical_tokens(tmp_path: Path) -> None:
    with running_stack(tmp_path / "overlapped") as overlapped:
        ahead, load_ahead = ask_all(overlapped), overlapped.wait_idle()
    with running_stack(tmp_path / "synchronous", synchronous=True) as synchronous:
        in_turn, load_in_turn = ask_all(synchronous), synchronous.wait_idle()
    assert [answer.ids for answer in ahead] == [answer.ids for answer in in_turn]
    assert [answer.finished.reason for answer in ahead] == [answer.finished.reason for answer in in_turn]
    reasons = {answer.finished.reason for answer in ahead}
    assert reasons == {api.FINISH_REASON_STOP, api.FINISH_REASON_LENGTH}
    # A stop that was not predicted costs a row if the next plan was published already, and none otherwise.
    assert load_ahead.wasted_rows > 0
    assert load_in_turn.wasted_rows == 0
    assert [list(load.integrity_violations) for load in (load_ahead, load_in_turn)] == [[], []]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("simulated")
    cost = directory / "cost.toml"
    cost.write_text('name = "test"\nsource = "made up"\n[t3]\nfixed_ms = 1\n[t4]\nfixed_ms = 0.2\n')
    with running_stack(directory, device="sim", cost_model=str(cost)) as running:
        yield running


def test_a_simulated_stream_says_so_and_is_the_hash_of_its_seed(simulated: Running) -> None:
    answers = [
        ask(simulated, request("Tell me a story.", max_tokens=40, seed=seed, ignore_eos=True))
        for seed in (3, 2**63 + 1)
    ]
    assert all(answer.events[0].accepted.simulated for answer in answers)
    assert [answer.ids for answer in answers] == [tokens(3, 0, 40), tokens(2**63 + 1, 0, 40)]


def test_a_simulated_device_has_no_logprobs_to_give(simulated: Running) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        ask(simulated, request("Tell me a story.", logprobs=2))
    assert raised.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "logprobs" in str(raised.value.details())
