"""A gateway in the test's own event loop, before a real Redis; the test plays scheduler and workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import pytest_asyncio
import redis

from albireo.checkpoint.fingerprint import fingerprint
from albireo.contract import codec, result_rows
from albireo.contract.keys import MODELS, Keys
from albireo.contract.plan import MAX_BRANCHES, Finish, Submission, branch_names, public_name
from albireo.models import TINY
from albireo.store.interface import LAST_STEP, EntryId
from albireo.store.redis_log import FIELD
from albireo.telemetry import OFF, Telemetry
from albireo.v1 import control_pb2, control_pb2_grpc, inference_pb2_grpc
from albireo.v1 import inference_pb2 as api
from albireo.v1 import log_pb2 as log
from gateway.models.backend import Backend as ServedBackend
from gateway.service import Gateway
from gateway.settings import GatewaySettings
from gateway.store.interface import Position
from tests.streams import check_status

GROUP = "w"
"""Incarnation of the group that is there from the start."""


class Backend:
    """Plays scheduler and workers: writes to Redis what they write."""

    def __init__(self, url: str, model: str = "tiny") -> None:
        self.url = url
        self.redis = redis.Redis.from_url(url)
        self.keys = Keys(model)
        self.begin()

    def begin(self) -> None:
        """A scheduler and a group start on an empty Redis."""
        self._notices = EntryId(0, 0)
        self._results: dict[str, EntryId] = {}  # of the groups that serve
        self.announce_scheduler()
        self.announce_model()
        self.open_epoch()

    @property
    def position(self) -> Position:
        """The ends of the logs, as of a gateway that has read all."""
        return Position(self._notices, dict(self._results))

    def announce_scheduler(self, model: str = "") -> None:
        """Of another model where one is named."""
        model = model or self.keys.model
        self.redis.sadd(MODELS, model)
        self.redis.set(Keys(model).lease, b"scheduler")

    def announce_load(self, load: control_pb2.Load) -> None:
        self.redis.set(self.keys.load, load.SerializeToString())

    def announce_model(
        self,
        device: str = "cpu",
        tp: int = 1,
        max_model_len: int = 1024,
        fingerprint: str = fingerprint(TINY),
    ) -> None:
        info = log.ServedModel(
            max_model_len=max_model_len,
            vocab_size=384,
            tp=tp,
            device=device,
            simulated=device == "sim",
            eos_token_ids=[1],
            fingerprint=fingerprint,
        )
        self.redis.set(self.keys.served_model, info.SerializeToString())

    def open_epoch(self, *groups: str) -> None:
        """The next epoch begins, with these groups."""
        self._notices = EntryId(self._notices.epoch + 1, -1)
        self._results.clear()
        self.redis.set(self.keys.epoch, self._notices.epoch)
        self.redis.delete(self.keys.serving)
        self._notify(log.Notice(open=log.EpochOpen(epoch=self._notices.epoch)))
        for group in groups or (GROUP,):
            self.open_group(group)

    def open_group(self, group: str) -> None:
        """Under its incarnation as a name, in capitals."""
        opening = log.GroupOpen(epoch=self._notices.epoch, group=group, name=group.upper())
        self.redis.sadd(self.keys.serving, group)
        self._append(group, EntryId(self._notices.epoch, 0), log.ResultEntry(open=opening))
        self._notify(log.Notice(group_open=opening))

    def close_group(self, group: str = GROUP, *, lost: bool = False) -> None:
        """``lost``: its results are gone."""
        close = log.ResultEntry(close=log.GroupClose(reason="died"))
        self.redis.srem(self.keys.serving, group)
        if lost:
            self.redis.delete(self.keys.results(group))
        else:
            self._append(group, EntryId(self._notices.epoch, LAST_STEP), close)
        del self._results[group]
        self._notify(log.Notice(group_closed=log.GroupClosed(group=group, name=group.upper(), reason="died")))

    def end_waiting(self, request: str, reason: Finish, num_outputs: int = 0) -> None:
        """The scheduler ends a request that waits."""
        ended = log.Ended(
            request_id=self.name_of(request), reason=codec.finish_name(reason), num_outputs=num_outputs
        )
        self._notify(log.Notice(ended=log.WaitingEnded(ended=[ended])))

    def result(
        self,
        rows: Sequence[tuple[int, int, Finish]] = (),
        *,
        group: str = GROUP,
        admitted: dict[str, int] | None = None,
        num_outputs: int = 0,
        ended: dict[str, Finish] | None = None,
        logprobs: int = 0,
        prompt: dict[int, tuple[int, int]] | None = None,
    ) -> None:
        """The result of a group's next step. ``rows``: incarnation, id, finish; ``admitted``: incarnation by
        request, each with ``num_outputs`` before it; ``prompt``: by incarnation, the first prompt position
        with log-probabilities and how many."""
        top = api.TokenLogprobs(logprob=-1, top_ids=range(logprobs), top_logprobs=[-1.0] * logprobs)
        result = log.StepResult(
            admitted=[
                log.Admitted(request_id=self.name_of(r), incarnation=i, num_outputs=num_outputs)
                for r, i in (admitted or {}).items()
            ],
            **result_rows.columns(
                range(len(rows)), [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]
            ),
            logprobs=[log.RowLogprobs(row=n, logprobs=top) for n in range(len(rows)) if logprobs],
            prompt_logprobs=[
                log.PromptLogprobs(incarnation=i, start=start, logprobs=[top] * count)
                for i, (start, count) in (prompt or {}).items()
            ],
            ended=[
                log.Ended(request_id=self.name_of(r), reason=codec.finish_name(f))
                for r, f in (ended or {}).items()
            ],
        )
        last = self._results[group]
        self._append(group, EntryId(last.epoch, last.step + 1), log.ResultEntry(result=result))

    def skip_steps(self, count: int) -> None:
        """Entries of the results are trimmed before the gateway reads them."""
        last = self._results[GROUP]
        self._results[GROUP] = EntryId(last.epoch, last.step + count)

    def append_raw(self, data: bytes) -> None:
        """The next entry of the results, whatever it is."""
        last = self._results[GROUP]
        self._results[GROUP] = EntryId(last.epoch, last.step + 1)
        self.redis.xadd(self.keys.results(GROUP), {FIELD: data}, id=str(self._results[GROUP]))

    def inbox(self) -> list[Submission | str]:
        """Submissions, and the public names of what was cancelled, in order."""
        return [entry if isinstance(entry, Submission) else public_name(entry) for entry in self._entries()]

    def name_of(self, public: str) -> str:
        """What the last acceptance of a request, or a branch of it, is called in the logs."""
        for entry in reversed(self.submissions()):
            for name in (entry.request_id, *branch_names(entry.request_id, MAX_BRANCHES)):
                if public_name(name) == public:
                    return name
        return public

    def submissions(self) -> list[Submission]:
        """What was accepted, in order, under its names in the logs."""
        return [entry for entry in self._entries() if isinstance(entry, Submission)]

    def _entries(self) -> list[Submission | str]:
        entries: Any = self.redis.xrange(self.keys.inbox)
        return [codec.inbox_from_bytes(fields[FIELD]) for _, fields in entries]

    def _append(self, group: str, entry_id: EntryId, entry: log.ResultEntry) -> None:
        self._results[group] = entry_id
        self.redis.xadd(self.keys.results(group), {FIELD: entry.SerializeToString()}, id=str(entry_id))

    def _notify(self, notice: log.Notice) -> None:
        self._notices = EntryId(self._notices.epoch, self._notices.step + 1)
        self.redis.xadd(self.keys.notices, {FIELD: notice.SerializeToString()}, id=str(self._notices))


class Served:
    """A gateway that serves, a client of it, and the scripted tiers behind it."""

    def __init__(self, gateway: Gateway, backend: Backend, channel: grpc.aio.Channel) -> None:
        self.gateway = gateway
        self.backend = backend
        self.channel = channel
        self.inference = inference_pb2_grpc.InferenceStub(channel)
        self.control = control_pb2_grpc.ControlStub(channel)

    @property
    def at(self) -> ServedBackend:
        """The gateway's side of the first backend of its own model."""
        return self.gateway.models.get("").backends[0]

    async def reads_all(self) -> None:
        """Waits until the gateway has read all that is in the logs."""
        await eventually(lambda: self.at.reader.position == self.backend.position)


@asynccontextmanager
async def serving(
    backend: Backend,
    *,
    has_model: bool = True,
    channel_options: Sequence[tuple[str, int]] = (),
    telemetry: Telemetry = OFF,
    **options: object,
) -> AsyncIterator[Served]:
    """A gateway with ``options`` that knows its model; ``has_model``: False where no group ever joined."""
    settings = GatewaySettings.model_validate(
        {"model": TINY, "port": 0, "redis_url": backend.url, "drain_seconds": 0, **options}
    )
    gateway = Gateway(settings, telemetry)
    await gateway.start()
    target = f"127.0.0.1:{gateway.port}"
    async with grpc.aio.insecure_channel(target, options=list(channel_options)) as channel:
        try:
            if has_model:
                await eventually(lambda: gateway.models.get("").info is not None)
            yield Served(gateway, backend, channel)
        finally:
            await gateway.stop()


@pytest.fixture
def backend(redis_url: str) -> Iterator[Backend]:
    found = Backend(redis_url)
    yield found
    found.redis.close()


@pytest_asyncio.fixture(loop_scope="session")
async def served(backend: Backend) -> AsyncIterator[Served]:
    async with serving(backend) as found:
        yield found


async def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Waits until ``condition`` holds, on the loop that the gateway runs on."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def request(text: str = "Hi", request_id: str = "r", **sampling: object) -> api.GenerateRequest:
    options = api.SamplingOptions(**sampling)  # type: ignore[arg-type]
    return api.GenerateRequest(request_id=request_id, text=text, sampling=options)


async def rest_of(call: Any) -> list[api.GenerateEvent]:
    """The events that were not read yet, of a stream that was accepted."""
    events = []
    with contextlib.suppress(grpc.aio.AioRpcError):
        while (event := await call.read()) is not grpc.aio.EOF:
            events.append(event)
    check_status(events, await call.code(), await call.details() or "")
    return events


async def code_of(call: Any) -> grpc.StatusCode:
    """Status of a unary call or of a stream, which is read to its end."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK
