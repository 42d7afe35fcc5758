"""A ``GenerateRequest`` becomes a submission, or a refusal that names the field."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass

import grpc
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from albireo.bounds import IDENTIFIER, MAX_PRIORITY
from albireo.plan import DEFAULT_TENANT, SamplingParams
from albireo.v1 import inference_pb2 as api
from gateway.checkpoint import Checkpoint
from gateway.refusal import Refusal, cut, invalid, unsupported
from gateway.sampling import SamplingValidator, branches_of, stops_of

REQUEST_ID = IDENTIFIER


@dataclass(frozen=True, slots=True)
class ValidRequest:
    """What the gateway runs: nothing optional, everything in range."""

    request_id: str
    prompt: tuple[int, ...]
    sampling: SamplingParams
    stops: tuple[str, ...]
    priority: int
    n: int
    tenant: str
    include_stop: bool = False


class Validator:
    """Checks requests against one model."""

    def __init__(
        self, model_name: str, checkpoint: Checkpoint, defaults: api.SamplingOptions | None = None
    ) -> None:
        """``defaults``: sampling that a client leaves open."""
        self._model_name = model_name
        self._checkpoint = checkpoint
        self._sampling = SamplingValidator(checkpoint.vocab_size, defaults)

    @property
    def sampling_defaults(self) -> api.SamplingOptions:
        return self._sampling.defaults

    def check_model(self, model: str) -> None:
        """Raises Refusal (NOT_FOUND) for a model that is not served here; empty means the one that is."""
        if model not in ("", self._model_name):
            raise Refusal(
                grpc.StatusCode.NOT_FOUND, f"model: {cut(model)!r} is not served, {self._model_name!r} is"
            )

    def generate(
        self, request: api.GenerateRequest, max_model_len: int, eos_ids: Collection[int]
    ) -> ValidRequest:
        """Raises Refusal. ``max_model_len`` bounds prompt and new tokens together."""
        _refuse_unknown(request, "")
        self.check_model(request.model)
        if request.request_id and not REQUEST_ID.fullmatch(request.request_id):
            raise invalid("request_id", "must be 1 to 64 characters of [A-Za-z0-9._-]")
        if request.tenant and not REQUEST_ID.fullmatch(request.tenant):
            raise invalid("tenant", "must be 1 to 64 characters of [A-Za-z0-9._-]")
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
        )

    def tokenize(self, request: api.TokenizeRequest) -> list[int]:
        """Raises Refusal."""
        _refuse_unknown(request, "")
        self.check_model(request.model)
        if request.WhichOneof("input") == "chat":
            return self._checkpoint.encode_chat(request.chat.messages, "chat")
        special = request.add_special_tokens if request.HasField("add_special_tokens") else True
        return self._checkpoint.encode(request.text, special=special)

    def detokenize(self, request: api.DetokenizeRequest) -> str:
        """Raises Refusal."""
        _refuse_unknown(request, "")
        self.check_model(request.model)
        self._sampling.check_ids("ids", request.ids)
        skip = request.skip_special_tokens if request.HasField("skip_special_tokens") else True
        return self._checkpoint.decode(list(request.ids), skip_special_tokens=skip)

    def _prompt(self, request: api.GenerateRequest, max_model_len: int) -> tuple[int, ...]:
        kind = request.WhichOneof("input")
        if kind is None:
            raise invalid("input", "one of text, token_ids, chat is needed")
        if kind == "text":
            prompt = self._checkpoint.encode(request.text) if request.text else []
        elif kind == "chat":
            prompt = self._checkpoint.encode_chat(request.chat.messages, "chat")
        else:
            self._sampling.check_ids("token_ids.ids", request.token_ids.ids)
            prompt = list(request.token_ids.ids)
        if not prompt:
            raise invalid(kind, "the prompt is empty")
        if len(prompt) >= max_model_len:
            raise invalid(
                kind,
                f"{len(prompt)} tokens; the context of {max_model_len} takes {max_model_len - 1} at most",
            )
        return tuple(prompt)


def _refuse_unknown(message: Message, path: str) -> None:
    """A newer client's field that this server does not know must not be ignored."""
    unknown = UnknownFieldSet(message)
    if len(unknown):
        raise unsupported(f"{path}field number {unknown[0].field_number}", "not known to this server")
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        values = [value] if isinstance(value, Message) else list(value)
        for part in values:
            _refuse_unknown(part, f"{path}{field.name}.")
