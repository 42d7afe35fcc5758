"""A client of the API for Python programs and for the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from albireo.v1 import control_pb2, control_pb2_grpc, inference_pb2, inference_pb2_grpc

DEFAULT_TARGET = "127.0.0.1:50051"

KEEPALIVE_MS = 20_000
KEEPALIVE_TIMEOUT_MS = 10_000
"""While a call is open, a gateway that is gone without a word is found within this and the time above.
Gateways put up with a ping every 10 s."""

Turn = tuple[str, str]
"""Role and content of one chat message."""


def request_for(
    prompt: str | Sequence[Turn] | Sequence[int], *, raw: bool = False, **options: Any
) -> inference_pb2.GenerateRequest:
    """A request for a question (``str``), a conversation, plain text (``raw``), or token ids.

    ``options`` are fields of ``GenerateRequest`` (``request_id``, ``model``, ``priority``, ``tenant``) or of
    ``SamplingOptions``; those that are None are left to the server. One ``stop`` string may come without a
    list. Raises ValueError for others.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if isinstance(given.get("stop"), str):
        given["stop"] = [given["stop"]]
    own = {name: given.pop(name) for name in ("request_id", "model", "priority", "tenant") if name in given}
    request = inference_pb2.GenerateRequest(sampling=inference_pb2.SamplingOptions(**given), **own)
    if isinstance(prompt, str) and raw:
        request.text = prompt
    elif isinstance(prompt, str):
        request.chat.messages.add(role="user", content=prompt)
    elif prompt and isinstance(prompt[0], int):
        request.token_ids.ids.extend(prompt)  # type: ignore[arg-type]
    else:
        for role, content in prompt:  # type: ignore[misc]
            request.chat.messages.add(role=role, content=content)
    return request


def describe(error: grpc.RpcError) -> str:
    """Status and message of a failed call, in a line."""
    code = error.code()
    return f"{code.name if code else 'UNKNOWN'}: {error.details()}"


class Client:
    """One channel to a gateway. Calls raise grpc.RpcError; ``timeout`` is in seconds."""

    def __init__(self, target: str = DEFAULT_TARGET) -> None:
        options = [
            # By itself gRPC looks for a server that is gone less and less often, up to two minutes apart.
            ("grpc.max_reconnect_backoff_ms", 2_000),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),  # a minute by itself, keepalive's or not
            # By itself gRPC pings hardly at all where a client only listens.
            ("grpc.http2.max_pings_without_data", 0),
        ]
        self._channel = grpc.insecure_channel(target, options=options)
        self._inference = inference_pb2_grpc.InferenceStub(self._channel)
        self._control = control_pb2_grpc.ControlStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def generate(
        self,
        prompt: str | Sequence[Turn] | Sequence[int],
        *,
        raw: bool = False,
        timeout: float | None = None,
        **options: Any,
    ) -> Iterator[inference_pb2.GenerateEvent]:
        """Events of one request; see :func:`request_for`. Leaving the iteration cancels the request."""
        call = self._inference.Generate(request_for(prompt, raw=raw, **options), timeout=timeout)
        try:
            yield from call
        finally:
            call.cancel()

    def cancel(self, request_id: str, *, timeout: float = 10) -> bool:
        """Ends all branches of a request. False where none is known, or it has ended."""
        return self._inference.Cancel(
            inference_pb2.CancelRequest(request_id=request_id), timeout=timeout
        ).found

    def tokenize(self, text: str, *, timeout: float = 10) -> list[int]:
        return list(self._inference.Tokenize(inference_pb2.TokenizeRequest(text=text), timeout=timeout).ids)

    def detokenize(self, ids: Sequence[int], *, timeout: float = 10) -> str:
        return self._inference.Detokenize(inference_pb2.DetokenizeRequest(ids=ids), timeout=timeout).text

    def server_info(self, *, timeout: float = 10) -> control_pb2.ServerInfo:
        return self._control.GetServerInfo(control_pb2.GetServerInfoRequest(), timeout=timeout)

    def model_info(self, *, timeout: float = 10) -> control_pb2.ModelInfo:
        return self._control.GetModelInfo(control_pb2.GetModelInfoRequest(), timeout=timeout)

    def watch_steps(self) -> Any:
        """A call that yields every step's ``StepRecord`` until it is cancelled."""
        return self._control.WatchSteps(control_pb2.WatchStepsRequest())

    def load(self, *, timeout: float = 10) -> control_pb2.Load:
        return self._control.GetLoad(control_pb2.GetLoadRequest(), timeout=timeout)
