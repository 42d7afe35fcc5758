"""A gateway in virtual time, without its gRPC server: reader, watch and submissions are the real ones."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, field

from albireo.contract.keys import Keys
from albireo.contract.plan import Submission, branches
from albireo.models import TINY
from albireo.store.interface import EntryId
from albireo.v1 import inference_pb2 as api
from albireo.v1 import log_pb2 as log
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from gateway.calls.refusal import Refusal
from gateway.liveness.backend_load import BackendLoad
from gateway.liveness.served_model import ServedModel
from gateway.liveness.watch import Watch
from gateway.requests.submission import Submitter
from gateway.requests.validation import ValidRequest
from gateway.store.heartbeat import Heartbeat
from gateway.store.memory_store import MemoryGatewayStore
from gateway.streams.results_reader import ResultsReader
from gateway.streams.router import Router
from gateway.streams.stream import TokenStream
from gateway.text.detokenizer import Vocabulary
from gateway.text.text_codec import TextCodec


@functools.cache
def vocabulary() -> Vocabulary:
    """That of the bundled model."""
    return Vocabulary(TextCodec(TINY).tokenizer)


@dataclass
class Answer:
    """What a client has received for one request."""

    request: ValidRequest
    refused: str = ""  # why it was not accepted
    failed: str = ""  # why its whole stream failed
    ids: dict[int, list[int]] = field(default_factory=dict)  # by branch
    ends: list[tuple[int, str]] = field(default_factory=list)  # branch and reason, in the order of arrival


class VirtualGateway:
    """One gateway. ``start`` once, then ``generate`` for every request."""

    def __init__(
        self, clock: VirtualClock, space: Keyspace, keys: Keys, name: str, *, fingerprint: str, max_queue: int
    ) -> None:
        store = MemoryGatewayStore(space, keys, name)
        self._clock = clock
        self._name = name
        numbers = itertools.count()
        self.submitter = Submitter(
            store,
            clock,
            max_queue=max_queue,
            record_seconds=3600,
            new_suffix=lambda: f"{name}.{next(numbers)}",
        )
        self._heartbeat = Heartbeat(store, clock)
        self.router = Router()
        self._reader = ResultsReader(store, clock, self.router, self._heartbeat, self._on_step)
        self._watch = Watch(
            store,
            clock,
            name,
            router=self.router,
            reader=self._reader,
            model=ServedModel(fingerprint),
            load=BackendLoad(),
            heartbeat=self._heartbeat,
            on_alive=lambda: None,
        )
        self.steps = 0

    async def start(self) -> None:
        await self._reader.start()
        await self._heartbeat.start()
        self._clock.start_task(f"{self._name} reader", self._reader.run())
        self._clock.start_task(f"{self._name} watch", self._watch.run())

    async def generate(
        self, request: ValidRequest, *, timeout_s: float = 600.0, cancel_after: float | None = None
    ) -> Answer:
        """One call from its submission to its end. ``cancel_after``: seconds until the client cancels it."""
        answer = Answer(request)
        stream = TokenStream(
            request, vocabulary(), lambda _: None, self.submitter.new_name(request.request_id)
        )
        self.router.register(stream)
        try:
            epoch = await self.submitter.submit(request, stream.name, "digest", timeout_s)
        except Refusal as refusal:
            answer.refused = refusal.message
            self.router.remove(stream)
            return answer
        self.router.bind(stream, epoch)
        if cancel_after is not None:
            cancelled = self.submitter.cancel_known(request.request_id)
            self._clock.loop.call_later(
                cancel_after, lambda: self._clock.start_task(f"cancel {request.request_id}", cancelled)
            )
        async for event in stream.events():
            self._take(answer, event)
        self.router.remove(stream)
        await self.submitter.note_end(request.request_id, stream.name)
        return answer

    def _take(self, answer: Answer, event: api.GenerateEvent) -> None:
        kind = event.WhichOneof("event")
        if kind == "tokens":
            ids = answer.ids.setdefault(event.tokens.index, [])
            assert event.tokens.offset == len(ids)
            ids += event.tokens.ids
        elif kind == "finished":
            reason = api.FinishReason.Name(event.finished.reason)
            answer.ends.append((event.finished.index, reason.removeprefix("FINISH_REASON_")))
        elif kind == "error":
            answer.failed = event.error.message

    def _on_step(self, group: str, entry_id: EntryId, result: log.StepResult, received: int) -> None:
        self.steps += 1

    @property
    def alive(self) -> bool:
        return self._watch.serving


def submission_of(request: ValidRequest) -> list[Submission]:
    """The branches that the scheduler makes of a request."""
    return list(branches(Submission(request.request_id, request.prompt, request.sampling, n=request.n)))
