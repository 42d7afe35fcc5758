"""Checks requests of clients: a valid request with ids and all options, or a refusal that names the field.

The ``Inference`` service calls it, for large requests on the work threads.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from albireo.contract.bounds import IDENTIFIER, MAX_PRIORITY
from albireo.contract.plan import DEFAULT_TENANT, SamplingParams
from albireo.v1 import inference_pb2 as api
from gateway.calls.refusal import invalid, unsupported
from gateway.requests.sampling import SamplingValidator, branches_of, stops_of
from gateway.text.text_codec import MAX_IDS, TextCodec

MAX_CHAT_MESSAGES = 4_096
MAX_ANSWER_BYTES = (1 << 20) - 1
"""Most bytes of an answer with ids or text: messages stay below 1 MiB."""


@dataclass(frozen=True, slots=True)
class ValidRequest:
    """A request with all options set and in range."""

    request_id: str
    prompt: tuple[int, ...]
    sampling: SamplingParams
    stops: tuple[str, ...]
    priority: int
    n: int
    tenant: str
    include_stop: bool = False
    scope: str = ""  # whose request ids are apart from those of others; empty: common to all

    @property
    def record_id(self) -> str:
        """The request's id in the store."""
        return record_id_of(self.scope, self.request_id)


def record_id_of(scope: str, request_id: str) -> str:
    """What a request is recorded under: another tenant's request of the same id has another record, so that
    neither sees, blocks or cancels the other's. Ids and tenants contain no ``:``."""
    return f"{scope}:{request_id}" if scope else request_id


class Validator:
    """Checks requests to one model. Thread-safe."""

    def __init__(self, text_codec: TextCodec, defaults: api.SamplingOptions | None = None) -> None:
        """``defaults``: sampling options that a client does not set."""
        self._text_codec = text_codec
        self._sampling = SamplingValidator(text_codec.vocab_size, defaults)

    @property
    def sampling_defaults(self) -> api.SamplingOptions:
        """Of the checkpoint; an option without a default is not set."""
        return self._sampling.defaults

    @property
    def accepts_chats(self) -> bool:
        """Whether the checkpoint has a usable chat template."""
        return self._text_codec.has_chat_template

    def generate(
        self, request: api.GenerateRequest, max_model_len: int, eos_ids: Collection[int], scope: str = ""
    ) -> ValidRequest:
        """Raises Refusal. ``max_model_len`` bounds prompt and new tokens together. ``scope``: of the id."""
        self._check_size(request, max_model_len)
        _refuse_unknown(request, "")
        for field, text in (("request_id", request.request_id), ("tenant", request.tenant)):
            if text and not IDENTIFIER.fullmatch(text):
                raise invalid(field, "must be 1 to 64 characters of [A-Za-z0-9._-]")
        if not -MAX_PRIORITY <= request.priority <= MAX_PRIORITY:
            raise invalid("priority", f"must be -{MAX_PRIORITY} to {MAX_PRIORITY}")
        prompt = self._prompt(request, max_model_len)
        return ValidRequest(
            request_id=request.request_id or f"gen-{secrets.token_hex(12)}",
            prompt=prompt,
            sampling=self._sampling.params(request.sampling, max_model_len - len(prompt), eos_ids),
            stops=stops_of(request.sampling),
            priority=request.priority,
            n=branches_of(request.sampling),
            tenant=request.tenant or DEFAULT_TENANT,
            include_stop=request.sampling.include_stop,
            scope=scope,
        )

    def tokenize(self, request: api.TokenizeRequest, max_model_len: int | None) -> api.TokenizeResponse:
        """Raises Refusal. ``max_model_len`` bounds texts as it does for ``generate``; None: not known."""
        self._check_size(request, max_model_len)
        _refuse_unknown(request, "")
        if request.WhichOneof("input") == "chat":
            ids = self._text_codec.encode_chat(request.chat.messages, "chat")
        else:
            special = request.add_special_tokens if request.HasField("add_special_tokens") else True
            ids = self._text_codec.encode(request.text, special=special)
        return _small_enough(api.TokenizeResponse(ids=ids), request.WhichOneof("input") or "text")

    def detokenize(self, request: api.DetokenizeRequest) -> api.DetokenizeResponse:
        """Raises Refusal."""
        if len(request.ids) > MAX_IDS:
            raise invalid("ids", f"{len(request.ids)}; at most {MAX_IDS}")
        _refuse_unknown(request, "")
        self._sampling.check_ids("ids", request.ids)
        skip = request.skip_special_tokens if request.HasField("skip_special_tokens") else True
        text = self._text_codec.decode(list(request.ids), skip_special_tokens=skip)
        return _small_enough(api.DetokenizeResponse(text=text), "ids")

    def _check_size(
        self, request: api.GenerateRequest | api.TokenizeRequest, max_model_len: int | None
    ) -> None:
        """Refuses an input that must be too long, before any work on it."""
        kind = request.WhichOneof("input")
        if kind == "text":
            self._check_bytes("text", [request.text], max_model_len)
        elif kind == "chat":
            messages = request.chat.messages
            if len(messages) > MAX_CHAT_MESSAGES:
                raise invalid("chat.messages", f"{len(messages)}; at most {MAX_CHAT_MESSAGES}")
            self._check_bytes("chat.messages", [message.content for message in messages], max_model_len)
        elif isinstance(request, api.GenerateRequest) and max_model_len is not None:
            _check_length("token_ids", len(request.token_ids.ids), max_model_len)

    def _check_bytes(self, field: str, texts: Sequence[str], max_model_len: int | None) -> None:
        longest = self._text_codec.longest_token_bytes
        if longest is None or max_model_len is None:
            return
        most = max_model_len * longest
        size = sum(len(text.encode()) for text in texts)
        if size > most:
            raise invalid(
                field, f"{size} bytes; the context of {max_model_len} tokens takes at most {most} bytes"
            )

    def _prompt(self, request: api.GenerateRequest, max_model_len: int) -> tuple[int, ...]:
        kind = request.WhichOneof("input")
        if kind is None:
            raise invalid("input", "one of text, token_ids, chat is needed")
        if kind == "text":
            prompt = self._text_codec.encode(request.text, max_ids=max_model_len) if request.text else []
        elif kind == "chat":
            prompt = self._text_codec.encode_chat(request.chat.messages, "chat", max_ids=max_model_len)
        else:
            self._sampling.check_ids("token_ids.ids", request.token_ids.ids)
            prompt = list(request.token_ids.ids)
        if not prompt:
            raise invalid(kind, "the prompt is empty")
        _check_length(kind, len(prompt), max_model_len)
        return tuple(prompt)


def _check_length(field: str, tokens: int, max_model_len: int) -> None:
    if tokens >= max_model_len:
        raise invalid(
            field, f"{tokens} tokens; the context of {max_model_len} takes {max_model_len - 1} at most"
        )


Answer = TypeVar("Answer", bound=Message)


def _small_enough(answer: Answer, field: str) -> Answer:
    size = answer.ByteSize()
    if size > MAX_ANSWER_BYTES:
        raise invalid(field, f"the answer has {size} bytes; at most {MAX_ANSWER_BYTES}: ask in parts")
    return answer


def _refuse_unknown(message: Message, path: str) -> None:
    """Refuses a field that this server does not know: to ignore a newer client's option would be wrong."""
    unknown = UnknownFieldSet(message)
    if len(unknown):
        raise unsupported(f"{path}field number {unknown[0].field_number}", "not known to this server")
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        values = [value] if isinstance(value, Message) else list(value)
        for part in values:
            _refuse_unknown(part, f"{path}{field.name}.")
