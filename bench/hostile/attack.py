"""One attack: ``python -m bench.hostile.attack NAME HOST PORT COUNT HOLD_SECONDS``.

``bench.hostile`` starts each attack as a process. It prints, as JSON, how many calls ended with which status.
It runs at the lowest priority, so that its own CPU time does not slow the gateway down on the same cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable

import grpc

from albireo.v1 import inference_pb2 as api
from bench.hostile.http2 import Connection, message
from bench.hostile.malformed import INFERENCE, KINDS

BATCH = 100
ANSWER_SECONDS = 3.0
"""Most that a batch of malformed calls waits for its answers."""
GENERATE = INFERENCE + "Generate"
NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
SEED = 9

NO_ANSWER = "no answer"

Statuses = Counter[str]


async def malformed(host: str, port: int, count: int, hold: float) -> Statuses:
    """Calls of all kinds, a hundred at once; every tenth batch some connections that speak no HTTP/2."""
    draw, statuses = random.Random(SEED), Statuses()
    for batch in range(count // BATCH):
        connection = await Connection.open(host, port)
        calls = [draw.choice(KINDS)(draw) for _ in range(BATCH)]
        streams = []
        for call in calls:
            stream = connection.begin(call.method, headers=call.headers)
            for at in range(0, max(len(call.body), 1), 16_000):
                connection.send(stream, call.body[at : at + 16_000], end=at + 16_000 >= len(call.body))
            streams.append(stream)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                while any(_end(connection, stream) == NO_ANSWER for stream in streams):
                    await asyncio.sleep(0.01)
        for call, stream in zip(calls, streams, strict=True):
            name = _end(connection, stream)
            statuses["INTERNAL (transport)" if call.transport and name == "INTERNAL" else name] += 1
        await connection.close()
        if batch % 10 == 0:
            await _send_garbage(host, port, draw)
    return statuses


async def begins(host: str, port: int, count: int, hold: float) -> Statuses:
    """Only headers, over many connections, kept open."""
    draw = random.Random(SEED)
    connections = [await Connection.open(host, port) for _ in range(max(count // 200, 1))]
    begun: list[tuple[Connection, int]] = []
    for _ in range(count // len(connections)):
        method = draw.choice((GENERATE, INFERENCE + "Tokenize"))
        begun += [(connection, connection.begin(method)) for connection in connections]
        await asyncio.sleep(0.02)
    return await _statuses_after(connections, begun, hold)


async def readers(host: str, port: int, count: int, hold: float) -> Statuses:
    """Generate with a flow-control window that is never enlarged, kept open."""
    connections = [await Connection.open(host, port, window=60) for _ in range(max(count // 20, 1))]
    request = api.GenerateRequest(text="Hi", sampling=api.SamplingOptions(max_tokens=32, ignore_eos=True))
    begun = []
    for _ in range(count // len(connections)):
        for connection in connections:
            stream = connection.begin(GENERATE)
            connection.send(stream, message(request.SerializeToString()))
            begun.append((connection, stream))
        await asyncio.sleep(0.1)
    return await _statuses_after(connections, begun, hold)


async def storms(host: str, port: int, count: int, hold: float) -> Statuses:
    """Requests that are cancelled at once, or a moment later."""
    draw, statuses = random.Random(SEED), Statuses()
    request = api.GenerateRequest(text="Hi", sampling=api.SamplingOptions(max_tokens=32))
    body = message(request.SerializeToString())
    connections = [await Connection.open(host, port) for _ in range(10)]
    for number in range(count):
        connection = connections[number % 10]
        stream = connection.begin(GENERATE)
        connection.send(stream, body)
        if draw.random() < 0.5:
            await asyncio.sleep(0.002)
        connection.reset(stream)
        statuses["cancelled by us"] += 1
    await asyncio.sleep(0.5)
    for connection in connections:
        await connection.close()
    return statuses


def _end(connection: Connection, stream: int) -> str:
    """The status of a call. Some are valid by chance, and stream until the connection is closed."""
    found = connection.streams[stream]
    if not found.over.is_set():
        return "accepted" if found.data else NO_ANSWER
    if found.status is not None:
        return NAMES[found.status]
    return "cut" if found.reset is not None or connection.closed.is_set() else "HTTP error"


async def _statuses_after(
    connections: list[Connection], begun: list[tuple[Connection, int]], seconds: float
) -> Statuses:
    """Statuses of the calls after ``seconds``."""
    await asyncio.sleep(seconds)
    statuses = Statuses()
    for connection, stream in begun:
        over = connection.streams[stream].over.is_set()
        statuses[_end(connection, stream) if over else "still open"] += 1
    for connection in connections:
        await connection.close()
    return statuses


async def _send_garbage(host: str, port: int, draw: random.Random) -> None:
    """Bytes that are not HTTP/2, and frames that break its rules."""
    for start in (b"", b"GET / HTTP/1.1\r\n\r\n", draw.randbytes(200)):
        _, writer = await asyncio.open_connection(host, port)
        writer.write(start)
        writer.close()
    connection = await Connection.open(host, port)
    connection.raw(draw.randbytes(2_000))
    await asyncio.sleep(0.01)
    await connection.close()


ATTACKS: dict[str, Callable[[str, int, int, float], Awaitable[Statuses]]] = {
    "malformed": malformed,
    "begins": begins,
    "readers": readers,
    "storms": storms,
}


async def main(name: str, host: str, port: str, count: str, hold: str) -> None:
    os.nice(19)
    print(json.dumps(await ATTACKS[name](host, int(port), int(count), float(hold))))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
