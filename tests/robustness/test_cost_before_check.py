"""What must be refused is refused before it is worked on, and never on the event loop's time."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import grpc
import pytest

from albireo.v1 import inference_pb2 as api
from tests.gateway.conftest import Backend, Served, eventually, serving

# grpc.aio has one poller for all loops, and it complains about those that are closed.
pytestmark = pytest.mark.asyncio(loop_scope="session")

ALMOST_4_MIB = 3_984_588
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def nested(field: int, payload: bytes) -> bytes:
    """A length-delimited field of the protobuf encoding."""
    length, rest = b"", len(payload)
    while rest > 127:
        length, rest = length + bytes((rest & 127 | 128,)), rest >> 7
    return bytes((field << 3 | 2,)) + length + bytes((rest,)) + payload


BOMBS = {
    "text": api.GenerateRequest(text="word " * (ALMOST_4_MIB // 5)).SerializeToString(),
    "chat.messages": nested(5, b"\x0a\x00" * (ALMOST_4_MIB // 2)),
    "chat.messages ": api.GenerateRequest(
        chat=api.Chat(messages=[api.ChatMessage(role="user", content="ab")] * 5_000)
    ).SerializeToString(),
    "token_ids": api.GenerateRequest(
        token_ids=api.TokenIds(ids=[5] * (ALMOST_4_MIB - 8))
    ).SerializeToString(),
    "stop": nested(6, b"\x42\x00" * (ALMOST_4_MIB // 2)),
    "unknown": b"\xf8\x07\x01" * (ALMOST_4_MIB // 3),
    "logit_bias": nested(
        6, b"".join(b"\x7a\x06\x08" + bytes((n & 127,)) + b"\x15\x00\x00\x00" for n in range(400_000))
    ),
}


async def timed(call: Any) -> tuple[grpc.StatusCode, str, float, float]:
    """Status and details of a call, its seconds, and the longest time for which the event loop was blocked.

    Both in seconds of this process on a core, client and gateway together: what other processes of the
    machine do meanwhile does not count.
    """
    began, longest = time.process_time(), 0.0
    while not call.done():
        before = time.process_time()
        await asyncio.sleep(0.002)
        longest = max(longest, time.process_time() - before)
    return await call.code(), await call.details() or "", time.process_time() - began, longest


@pytest.mark.parametrize("name", BOMBS)
async def test_four_megabytes_are_refused_at_once(served: Served, name: str) -> None:
    raw: Any = served.channel
    code, details, seconds, longest = await timed(
        raw.unary_stream("/albireo.v1.Inference/Generate")(BOMBS[name], timeout=20)
    )
    assert code is (INVALID if len(BOMBS[name]) < 4 << 20 else grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert details.startswith((name.strip(), "message: "))
    assert seconds < 1.5
    assert longest < 0.5


async def test_text_is_bounded_by_what_the_context_can_hold(served: Served) -> None:
    """Never below what fits: a text of the context's number of longest tokens is still tokenized."""
    longest = served.gateway.models.get("").checkpoint.validator._text_codec.longest_token_bytes
    assert longest is not None
    fits, beyond = "a" * (1024 * longest), "a" * (1024 * longest + 1)
    assert (await served.inference.Tokenize(api.TokenizeRequest(text=fits), timeout=20)).ids
    for asked in (
        served.inference.Tokenize(api.TokenizeRequest(text=beyond), timeout=20),
        served.inference.Generate(api.GenerateRequest(text=beyond), timeout=20),
        served.inference.Tokenize(
            api.TokenizeRequest(
                chat=api.Chat(messages=[api.ChatMessage(role="user", content=beyond[::2])] * 2)
            ),
            timeout=20,
        ),
    ):
        code, details, _, _ = await timed(asked)
        assert code is INVALID
        assert f"bytes; the context of 1024 tokens takes at most {1024 * longest} bytes" in details


async def test_detokenize_is_bounded(served: Served) -> None:
    code, details, _, _ = await timed(
        served.inference.Detokenize(api.DetokenizeRequest(ids=[70] * 1_900_000), timeout=20)
    )
    assert code is INVALID
    assert details.startswith("ids: ")


async def test_the_queue_for_threads_is_bounded_and_drops_cancelled_calls(backend: Backend) -> None:
    """Of many large texts at once some are pushed back; those that are cancelled are never begun."""
    backend.announce_model(max_model_len=1 << 20)
    async with serving(backend) as served:
        begun: list[str] = []
        go_on = threading.Event()

        def blocked(text: str, **options: Any) -> list[int]:
            begun.append(text[0])
            go_on.wait(60)
            return [5]

        served.gateway.models.get("").checkpoint.validator._text_codec.encode = blocked  # type: ignore[method-assign]
        calls = {
            f"{n:x}": served.inference.Tokenize(api.TokenizeRequest(text=f"{n:x}" * ALMOST_4_MIB), timeout=60)
            for n in range(12)
        }
        # One runs, four wait: with a fifth, it would be more than 16 MiB.
        await eventually(lambda: [call.done() for call in calls.values()].count(True) == 7, 60)
        await eventually(lambda: len(begun) == 1)
        for call in calls.values():
            if call.done():
                assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert "grpc-retry-pushback-ms" in dict(await call.trailing_metadata() or ())
        first, *others = [name for name, call in calls.items() if not call.done() and name != begun[0]]
        for name in others:
            calls[name].cancel()
        waiting = served.gateway._work._large
        await eventually(lambda: waiting._waiting < 2 * ALMOST_4_MIB)  # the cancellations have come
        go_on.set()
        for name in (begun[0], first):
            assert (await calls[name]).ids == [5]
        short = served.inference.Tokenize(api.TokenizeRequest(text="short"), timeout=20)
        assert (await short).ids == [5]
        assert begun == [begun[0], first, "s"]
