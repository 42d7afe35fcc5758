"""Tokens of the bundled model through all four tiers."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from albireo.v1 import inference_pb2 as api
from tests.stack import Answer, Running, ask, request, running_stack


def test_a_sum_is_answered_token_by_token(tp2: Running) -> None:
    answer = ask(tp2, request("What is 37 + 45?"))
    assert "82" in answer.text
    assert answer.kinds[0] == "accepted"
    assert answer.kinds[-1] == "finished"
    assert answer.kinds.count("tokens") > 1
    assert answer.finished.reason == api.FINISH_REASON_STOP
    assert answer.finished.usage.completion_tokens == len(answer.ids)


def test_length_and_stop_string_end_a_stream(tp2: Running) -> None:
    full = ask(tp2, request("Tell me a story about a fox.", max_tokens=30))
    assert full.finished.reason == api.FINISH_REASON_LENGTH
    assert len(full.ids) == 30
    stop = full.text[20:26]
    cut = ask(tp2, request("Tell me a story about a fox.", max_tokens=30, stop=[stop]))
    assert cut.finished.reason == api.FINISH_REASON_STOP
    assert cut.finished.stop == stop
    assert cut.text == full.text[: full.text.index(stop)]


def test_a_seed_repeats_and_the_gateways_own_seed_replays(tp2: Running) -> None:
    message = request("Tell me a story about a fox.", temperature=1.0, max_tokens=40)
    first = ask(tp2, message)
    message.sampling.seed = first.events[0].accepted.seed
    assert ask(tp2, message).ids == first.ids


def test_logprobs_come_with_every_token(tp2: Running) -> None:
    answer = ask(tp2, request("What is 1 + 2?", max_tokens=5, logprobs=3))
    logprobs = [entry for event in answer.events for entry in event.tokens.logprobs]
    assert len(logprobs) == len(answer.ids)
    for token, entry in zip(answer.ids, logprobs, strict=True):
        assert len(entry.top_ids) == 3
        assert entry.top_ids[0] == token  # greedy
        assert entry.top_logprobs[0] == pytest.approx(entry.logprob, abs=1e-6)
        assert list(entry.top_logprobs) == sorted(entry.top_logprobs, reverse=True)


def test_a_repeated_prompt_hits_the_prefix_cache(tp2: Running) -> None:
    prompt = "Tell me a story about a fox. " * 8
    first, second = (ask(tp2, request(prompt, max_tokens=8)) for _ in range(2))
    assert second.finished.usage.cached_prompt_tokens >= 16
    assert second.text == first.text


def test_64_streams_with_a_third_cancelled_equal_their_solo_runs(tp2: Running) -> None:
    chosen = random.Random(7)
    prompts = [
        chosen.choice(
            [
                f"What is {chosen.randrange(50)} + {chosen.randrange(50)}?",
                "Tell me a story about a fox.",
                f"Count on from {chosen.randrange(90)}.",
                "Tell me a story about a bear. " * chosen.randrange(1, 12),
            ]
        )
        for _ in range(64)
    ]
    messages = [request(p, max_tokens=chosen.randrange(4, 60), ignore_eos=True) for p in prompts]
    cancelled = set(chosen.sample(range(64), 21))
    start = threading.Barrier(64)

    def stream(index: int) -> Answer | None:
        start.wait(timeout=30)
        call = tp2.inference.Generate(messages[index], timeout=100)
        if index not in cancelled:
            return Answer(list(call))
        seen = 0
        for event in call:
            seen += len(event.tokens.ids)
            if seen >= messages[index].sampling.max_tokens // 2:
                break
        call.cancel()
        return None

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(stream, range(64)))
    load = tp2.wait_idle()
    assert list(load.integrity_violations) == []
    assert load.slots_free == load.slots_total
    assert load.blocks_free == load.blocks_total
    for index, answer in enumerate(answers):
        if answer is not None:
            solo = ask(tp2, messages[index])
            assert answer.ids == solo.ids
            assert answer.text == solo.text
            assert len(answer.ids) == messages[index].sampling.max_tokens


def test_a_cancel_from_elsewhere_ends_the_stream(tp2: Running) -> None:
    message = request("Tell me a story about a fox.", max_tokens=900, ignore_eos=True)
    message.request_id = "to-cancel"
    call = tp2.inference.Generate(message, timeout=60)
    events = [next(call), next(call)]
    assert tp2.inference.Cancel(api.CancelRequest(request_id="to-cancel"), timeout=5).found
    answer = Answer([*events, *call])
    assert answer.finished.reason == api.FINISH_REASON_CANCELLED
    assert len(answer.ids) < 900


def test_a_clients_deadline_ends_the_request(tp2: Running) -> None:
    message = request("Tell me a story about a fox.", max_tokens=900, ignore_eos=True)
    with pytest.raises(grpc.RpcError) as raised:
        list(tp2.inference.Generate(message, timeout=0.3))
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert tp2.wait_idle().slots_free == tp2.load().slots_total


@pytest.mark.slow
def test_the_tp_degree_does_not_change_the_text(tp2: Running, tmp_path: Path) -> None:
    """Of 4 and 2; the test below compares 1 and 2."""
    messages = [request("Tell me a story about a fox.", max_tokens=64), request("What is 58 - 29?")]
    with running_stack(tmp_path, tp=4) as other:
        for message in messages:
            assert ask(other, message).text == ask(tp2, message).text


@pytest.mark.slow
def test_memory_pressure_preempts_and_loses_nothing(
    tp2: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So few blocks that 12 stories cannot run side by side: preempted ones are recomputed, on one rank; with
    enough blocks, on two, they all run at once. Every third one has two answers and log-probabilities of its
    prompt."""
    messages = [
        request(
            f"Tell me a story about a fox and {number} bears.",
            max_tokens=150,
            ignore_eos=True,
            n=1 if number % 3 else 2,
            prompt_logprobs=None if number % 3 else 0,
        )
        for number in range(12)
    ]
    monkeypatch.setenv("ALBIREO_WORKER_KV_MEMORY", "1MiB")
    with running_stack(tmp_path) as small, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda message: ask(small, message), messages))
        load = small.wait_idle()
        before = tp2.load().preemptions
        expected = list(pool.map(lambda message: ask(tp2, message), messages))
    assert load.preemptions > 0
    assert tp2.load().preemptions == before
    assert list(load.integrity_violations) == []
    assert load.blocks_free == load.blocks_total
    for message, answer, whole in zip(messages, answers, expected, strict=True):
        for index in range(message.sampling.n):
            assert answer.branch(index)[0] == whole.branch(index)[0]
        logprobs = [entry for event in answer.events for entry in event.prompt_logprobs.logprobs]
        asked = message.sampling.HasField("prompt_logprobs")
        assert len(logprobs) == (answer.events[0].accepted.prompt_tokens - 1 if asked else 0)
