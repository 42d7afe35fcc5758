"""A load that changes every metric: tenants, chat and text, shared prefixes, more requests than the KV blocks
hold, and calls that are cancelled, refused, or exceed their deadline."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc

from albireo.client import request_for
from albireo.v1 import inference_pb2 as api
from albireo.v1 import inference_pb2_grpc

TENANTS = ("alice", "bob", "carol", "")
PREFIX = (
    "These are questions about numbers, days, months and stories. Answer each of them in a few words. " * 3
)
QUESTIONS = (
    "What is 37 + 45?",
    "What is 90 - 17?",
    "Count on from 12.",
    "Which day comes after Monday?",
    "Tell me a short story.",
    "Reverse: sun moon star",
)
CALL_SECONDS = 60.0
RETRY_SECONDS = 0.2
STATUS_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(slots=True)
class ClientReport:
    """What the clients of a run received. Reports of several runs can be added."""

    statuses: Counter[str] = field(default_factory=Counter)  # calls, by the status that they ended with
    output_tokens: int = 0

    def __add__(self, other: ClientReport) -> ClientReport:
        return ClientReport(self.statuses + other.statuses, self.output_tokens + other.output_tokens)


def trace_header(number: int) -> tuple[str, str]:
    """A trace id, and the ``traceparent`` header by which a client asks to be traced under it."""
    trace_id = f"{number:032x}"
    return trace_id, f"00-{trace_id}-{number:016x}-01"


def make_request(draw: random.Random) -> api.GenerateRequest:
    """A question or a text of one of the tenants; most have the same prefix."""
    chat = draw.random() < 0.6
    question = draw.choice(QUESTIONS)
    return request_for(
        (PREFIX if draw.random() < 0.8 else "") + question,
        raw=not chat,
        tenant=draw.choice(TENANTS),
        priority=draw.choice((-1, 0, 0, 1)),
        temperature=draw.choice((0.0, 0.8)),
        seed=draw.getrandbits(32),
        max_tokens=draw.randrange(40, 240),
        ignore_eos=draw.random() < 0.6,
        n=4 if draw.random() < 0.05 else 1,
    )


async def run(
    target: str, *, clients: int, seconds: float, traceparents: Sequence[str] = (), seed: int = 1
) -> ClientReport:
    """``clients`` send one request after the other for ``seconds``. ``traceparents``: headers of additional
    requests, spread over that time, which are traced and never cancelled."""
    report = ClientReport()
    until = time.monotonic() + seconds
    draw = random.Random(seed)
    async with grpc.aio.insecure_channel(target) as channel, asyncio.TaskGroup() as tasks:
        stub = inference_pb2_grpc.InferenceStub(channel)
        for _ in range(clients):
            tasks.create_task(_client(stub, random.Random(draw.getrandbits(32)), until, report))
        for number, traceparent in enumerate(traceparents, 1):
            after = seconds * number / (len(traceparents) + 1)
            tasks.create_task(_traced(stub, traceparent, after, report))
    return report


async def _client(
    stub: inference_pb2_grpc.InferenceStub, draw: random.Random, until: float, report: ClientReport
) -> None:
    while time.monotonic() < until:
        request, chance = make_request(draw), draw.random()
        timeout, leave_after = CALL_SECONDS, 0
        if chance < 0.04:
            leave_after = draw.randrange(1, 20)
        elif chance < 0.08:
            timeout = 0.2
            request.sampling.max_tokens, request.sampling.ignore_eos = 600, True
        elif chance < 0.10:
            request.sampling.top_p = 2.0  # out of range
        await _call(stub, request, report, timeout=timeout, leave_after=leave_after)


async def _traced(
    stub: inference_pb2_grpc.InferenceStub, header: str, after: float, report: ClientReport
) -> None:
    await asyncio.sleep(after)
    request = request_for(
        PREFIX + QUESTIONS[4], tenant="alice", max_tokens=64, ignore_eos=True, temperature=0
    )
    await _call(stub, request, report, timeout=CALL_SECONDS, metadata=(("traceparent", header),))


async def _call(
    stub: inference_pb2_grpc.InferenceStub,
    request: api.GenerateRequest,
    report: ClientReport,
    *,
    timeout: float,
    leave_after: int = 0,
    metadata: Sequence[tuple[str, str]] = (),
) -> None:
    """``leave_after``: messages with tokens after which the call is cancelled; 0: never."""
    call = stub.Generate(request, timeout=timeout, metadata=metadata)
    status, seen = "OK", 0
    try:
        async for event in call:
            report.output_tokens += len(event.tokens.ids)
            seen += event.WhichOneof("event") == "tokens"
            if event.WhichOneof("event") == "error":
                status = STATUS_NAMES[event.error.code]
            if leave_after and seen >= leave_after:
                call.cancel()
    except asyncio.CancelledError:
        status = "CANCELLED"
    except grpc.RpcError as error:
        status = error.code().name
    report.statuses[status] += 1
    if status in ("UNAVAILABLE", "RESOURCE_EXHAUSTED"):
        await asyncio.sleep(RETRY_SECONDS)
