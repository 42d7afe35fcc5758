"""A blocking client of the API, for Python programs and for the command line. Threads may share one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.descriptor import FieldDescriptor

from albireo import DEFAULT_TARGET
from albireo.runtime.access import ANYONE, Access
from albireo.v1 import control_pb2, control_pb2_grpc, inference_pb2, inference_pb2_grpc

KEEPALIVE_MS = 20_000
KEEPALIVE_TIMEOUT_MS = 10_000
"""While a call is open, a gateway that vanishes without closing the connection is noticed within the sum of
this and the interval above. Gateways accept a ping every 10 s."""

Message = Mapping[str, str] | tuple[str, str]
"""One chat message: ``{"role": "user", "content": "..."}`` or ``("user", "...")``."""
Prompt = str | Iterable[Message] | Iterable[int]
"""A question or text, the messages of a conversation, or token ids."""

REQUEST_OPTIONS = ("request_id", "model", "priority", "tenant")
"""Options that are fields of ``GenerateRequest``; the others are fields of ``SamplingOptions``."""

PLAIN_KINDS: dict[int, type] = {FieldDescriptor.TYPE_BOOL: bool, FieldDescriptor.TYPE_STRING: str}
"""Python's type for fields that are not numbers."""


def request_for(prompt: Prompt, *, raw: bool = False, **options: Any) -> inference_pb2.GenerateRequest:
    """A request for a question (``str``), a conversation, plain text (``raw``), or token ids.

    ``options`` are fields of ``GenerateRequest`` (``request_id``, ``model``, ``priority``, ``tenant``) or of
    ``SamplingOptions``; those that are None are left to the server. One ``stop`` string may come without a
    list. Raises TypeError for an unknown option and for a value of a wrong type, ValueError for a value that
    its field cannot hold and for an empty prompt; both name the option or the message.
    """
    request = inference_pb2.GenerateRequest(sampling=inference_pb2.SamplingOptions())
    for name, value in options.items():
        _check_option(name)
        if value is None:
            continue
        owner = request if name in REQUEST_OPTIONS else request.sampling
        _set(owner, name, [value] if name == "stop" and isinstance(value, str) else value)
    if isinstance(prompt, str):
        _encoded("prompt", prompt)
        if raw:
            request.text = prompt
        else:
            request.chat.messages.add(role="user", content=prompt)
        return request
    if raw:
        raise TypeError(f"prompt: raw text is a str, not {_kind(prompt)}")
    if isinstance(prompt, bytes | Mapping) or not isinstance(prompt, Iterable):
        raise TypeError(f"prompt: a str, a list of messages or a list of token ids, not {_kind(prompt)}")
    items = list(prompt)
    if not items:
        raise ValueError("prompt: it has no message and no token id")
    if hasattr(items[0], "__index__"):
        _set(request.token_ids, "ids", items)
    else:
        for position, item in enumerate(items):
            role, content = _message(f"messages[{position}]", item)
            request.chat.messages.add(role=role, content=content)
    return request


def _message(name: str, item: object) -> tuple[str, str]:
    """Role and content. Raises TypeError, and ValueError for text that UTF-8 cannot hold."""
    if isinstance(item, Mapping):
        if set(item) != {"role", "content"}:
            raise TypeError(f"{name}: a message has role and content, this one has {sorted(map(str, item))}")
        parts = (item["role"], item["content"])
    elif isinstance(item, tuple) and len(item) == 2:
        parts = item
    else:
        raise TypeError(
            f'{name}: a message is {{"role": ..., "content": ...}} or (role, content), not {_kind(item)}'
        )
    for part, value in zip(("role", "content"), parts, strict=True):
        if not isinstance(value, str):
            raise TypeError(f"{name}.{part}: a str, not {_kind(value)}")
        _encoded(f"{name}.{part}", value)
    return parts


def _check_option(name: str) -> None:
    known = (*REQUEST_OPTIONS, *inference_pb2.SamplingOptions.DESCRIPTOR.fields_by_name)
    if name not in known:
        raise TypeError(f"unknown option {name!r}; known: {', '.join(known)}")


def _set(owner: Any, name: str, value: Any) -> None:
    """Sets a field, or fills a repeated one. Raises TypeError and ValueError that name it."""
    field = owner.DESCRIPTOR.fields_by_name[name]
    for one in value if field.is_repeated and isinstance(value, Sequence) else [value]:
        # Protobuf would take True for 1, and bytes for text.
        kind = next((kind for kind in (bool, str, bytes) if isinstance(one, kind)), None)
        if kind is not PLAIN_KINDS.get(field.type):
            expected = PLAIN_KINDS.get(field.type)
            raise TypeError(f"{name}: {expected.__name__ if expected else 'a number'}, not {_kind(one)}")
        if isinstance(one, str):
            _encoded(name, one)
    try:
        owner.MergeFrom(type(owner)(**{name: value}))
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None


def _encoded(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:  # a surrogate, such as a byte of the command line that Python could not decode
        raise ValueError(f"{name}: not UTF-8") from None


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__


def describe(error: grpc.RpcError) -> str:
    """Status and message of a failed call, in a line."""
    code = error.code()
    return f"{code.name if code else 'UNKNOWN'}: {error.details()}"


class Client:
    """One channel to a gateway. Calls raise grpc.RpcError; ``timeout`` is in seconds."""

    def __init__(self, target: str = DEFAULT_TARGET, access: Access = ANYONE) -> None:
        """``access``: the API key and TLS, where the gateway asks for them."""
        options = [
            # gRPC's default backoff grows to two minutes between two attempts to connect.
            ("grpc.max_reconnect_backoff_ms", 2_000),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            # Without this, gRPC waits a minute for the answer to a ping, those of keepalive included.
            ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            # By default gRPC stops pinging after two pings where a client only receives.
            ("grpc.http2.max_pings_without_data", 0),
        ]
        self._metadata = access.metadata
        self._channel = access.channel(target, options)
        self._inference = inference_pb2_grpc.InferenceStub(self._channel)
        self._control = control_pb2_grpc.ControlStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def generate(
        self, prompt: Prompt, *, raw: bool = False, timeout: float | None = None, **options: Any
    ) -> Iterator[inference_pb2.GenerateEvent]:
        """Events of one request, for example ``generate([{"role": "user", "content": "Hi"}])``.

        Arguments, TypeError and ValueError: see :func:`request_for`. The call begins with the iteration, and
        leaving that cancels it. A stream that fails yields its ``error`` event first, if it was accepted,
        and then raises grpc.RpcError with the same code and message.
        """
        return self._events(request_for(prompt, raw=raw, **options), timeout)

    def _events(
        self, request: inference_pb2.GenerateRequest, timeout: float | None
    ) -> Iterator[inference_pb2.GenerateEvent]:
        call = self._inference.Generate(request, timeout=timeout, metadata=self._metadata)
        try:
            yield from call
        finally:
            call.cancel()

    def cancel(self, request_id: str, *, model: str = "", timeout: float = 10) -> bool:
        """Cancels all branches of a request. False where no such request is known, or it has ended.

        ``model``, here and below: the name of the model; empty: that of the gateway's ``--model``, or the
        only one.
        """
        request = inference_pb2.CancelRequest(request_id=request_id, model=model)
        return self._inference.Cancel(request, timeout=timeout, metadata=self._metadata).found

    def tokenize(self, text: str, *, model: str = "", timeout: float = 10) -> list[int]:
        request = inference_pb2.TokenizeRequest(text=text, model=model)
        return list(self._inference.Tokenize(request, timeout=timeout, metadata=self._metadata).ids)

    def detokenize(self, ids: Sequence[int], *, model: str = "", timeout: float = 10) -> str:
        request = inference_pb2.DetokenizeRequest(ids=ids, model=model)
        return self._inference.Detokenize(request, timeout=timeout, metadata=self._metadata).text

    def server_info(self, *, timeout: float = 10) -> control_pb2.ServerInfo:
        request = control_pb2.GetServerInfoRequest()
        return self._control.GetServerInfo(request, timeout=timeout, metadata=self._metadata)

    def model_info(self, model: str = "", *, timeout: float = 10) -> control_pb2.ModelInfo:
        request = control_pb2.GetModelInfoRequest(model=model)
        return self._control.GetModelInfo(request, timeout=timeout, metadata=self._metadata)

    def watch_steps(self, model: str = "") -> Any:
        """A call that yields every step's ``StepRecord`` until it is cancelled."""
        request = control_pb2.WatchStepsRequest(model=model)
        return self._control.WatchSteps(request, metadata=self._metadata)

    def load(self, model: str = "", *, timeout: float = 10) -> control_pb2.Load:
        request = control_pb2.GetLoadRequest(model=model)
        return self._control.GetLoad(request, timeout=timeout, metadata=self._metadata)
