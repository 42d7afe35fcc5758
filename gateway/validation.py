"""A ``GenerateRequest`` becomes a submission, or a refusal that names the field."""

from __future__ import annotations

import math
import re
import secrets
from dataclasses import dataclass

import grpc
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from albireo.plan import SamplingParams
from albireo.v1 import inference_pb2 as api
from gateway.checkpoint import Checkpoint
from gateway.refusal import Refusal, invalid, unsupported

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
DEFAULT_MAX_TOKENS = 256
MAX_TEMPERATURE = 100.0
MAX_STOPS = 16
MAX_STOP_LENGTH = 1024
MAX_STOP_IDS = 64
MAX_LOGPROBS = 20
MAX_PRIORITY = 100

# Controls that are refused, with the value that means "off" and is therefore taken.
NOT_YET: dict[str, float] = {
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "n": 1,
}


@dataclass(frozen=True, slots=True)
class ValidRequest:
    """What the gateway runs: nothing optional, everything in range."""

    request_id: str
    prompt: tuple[int, ...]
    sampling: SamplingParams
    stops: tuple[str, ...]
    priority: int


class Validator:
    """Checks requests against one model."""

    def __init__(self, model_name: str, checkpoint: Checkpoint) -> None:
        self._model_name = model_name
        self._checkpoint = checkpoint

    def check_model(self, model: str) -> None:
        """Raises Refusal (NOT_FOUND) for a model that is not served here; empty means the one that is."""
        if model not in ("", self._model_name):
            raise Refusal(
                grpc.StatusCode.NOT_FOUND, f"model: {model!r} is not served, {self._model_name!r} is"
            )

    def generate(self, request: api.GenerateRequest, max_model_len: int) -> ValidRequest:
        """Raises Refusal. ``max_model_len`` bounds prompt and new tokens together."""
        _refuse_unknown(request, "")
        self.check_model(request.model)
        if request.request_id and not REQUEST_ID.fullmatch(request.request_id):
            raise invalid("request_id", "must be 1 to 64 characters of [A-Za-z0-9._-]")
        if not -MAX_PRIORITY <= request.priority <= MAX_PRIORITY:
            raise invalid("priority", f"must be -{MAX_PRIORITY} to {MAX_PRIORITY}")
        prompt = self._prompt(request, max_model_len)
        return ValidRequest(
            request_id=request.request_id or f"gen-{secrets.token_hex(12)}",
            prompt=prompt,
            sampling=self._sampling(request.sampling, max_model_len - len(prompt)),
            stops=_stops(request.sampling),
            priority=request.priority,
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
        self._check_ids("ids", request.ids)
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
            self._check_ids("token_ids.ids", request.token_ids.ids)
            prompt = list(request.token_ids.ids)
        if not prompt:
            raise invalid(kind, "the prompt is empty")
        if len(prompt) >= max_model_len:
            raise invalid(
                kind,
                f"{len(prompt)} tokens; the context of {max_model_len} takes {max_model_len - 1} at most",
            )
        return tuple(prompt)

    def _check_ids(self, field: str, ids: object) -> None:
        largest = max(ids, default=0)  # type: ignore[call-overload]
        if largest >= self._checkpoint.vocab_size:
            raise invalid(field, f"{largest} is not below the vocabulary's {self._checkpoint.vocab_size}")

    def _sampling(self, options: api.SamplingOptions, room: int) -> SamplingParams:
        """``room``: new tokens that the context leaves."""
        _refuse_not_yet(options)
        _check_range(options, "temperature", 0, MAX_TEMPERATURE)
        _check_range(options, "top_p", 0, 1)
        _check_range(options, "min_p", 0, 1)
        if options.HasField("top_p") and options.top_p == 0:
            raise invalid("sampling.top_p", "must be above 0")
        if options.top_k >= 2**31:
            raise invalid("sampling.top_k", "must be below 2^31")
        if len(options.stop_token_ids) > MAX_STOP_IDS:
            raise invalid("sampling.stop_token_ids", f"at most {MAX_STOP_IDS}")
        self._check_ids("sampling.stop_token_ids", options.stop_token_ids)
        if options.logprobs > MAX_LOGPROBS:
            raise invalid("sampling.logprobs", f"at most {MAX_LOGPROBS}")
        max_tokens = options.max_tokens if options.HasField("max_tokens") else min(DEFAULT_MAX_TOKENS, room)
        if not 1 <= max_tokens <= room:
            raise invalid(
                "sampling.max_tokens", f"{max_tokens}; must be 1 to {room}, what the context leaves"
            )
        if options.min_tokens > max_tokens:
            raise invalid("sampling.min_tokens", f"{options.min_tokens} is above max_tokens, {max_tokens}")
        return SamplingParams(
            max_tokens=max_tokens,
            min_tokens=options.min_tokens,
            temperature=options.temperature if options.HasField("temperature") else 1.0,
            # More than there are is all of them, which is what off means.
            top_k=options.top_k if options.top_k < self._checkpoint.vocab_size else 0,
            top_p=options.top_p if options.HasField("top_p") else 1.0,
            min_p=options.min_p,
            seed=options.seed if options.HasField("seed") else secrets.randbits(64),
            stop_ids=tuple(options.stop_token_ids),
            ignore_eos=options.ignore_eos,
            logprobs=options.logprobs if options.HasField("logprobs") else -1,
        )


def _stops(options: api.SamplingOptions) -> tuple[str, ...]:
    if len(options.stop) > MAX_STOPS:
        raise invalid("sampling.stop", f"at most {MAX_STOPS}")
    for stop in options.stop:
        if not 1 <= len(stop) <= MAX_STOP_LENGTH:
            raise invalid("sampling.stop", f"each must have 1 to {MAX_STOP_LENGTH} characters")
    return tuple(options.stop)


def _check_range(options: api.SamplingOptions, name: str, low: float, high: float) -> None:
    value = getattr(options, name)
    if not (math.isfinite(value) and low <= value <= high):
        raise invalid(f"sampling.{name}", f"{value:g}; must be {low:g} to {high:g}")


def _refuse_not_yet(options: api.SamplingOptions) -> None:
    if options.logit_bias:
        raise unsupported("sampling.logit_bias")
    for name, off in NOT_YET.items():
        if options.HasField(name) and getattr(options, name) != off:
            raise unsupported(f"sampling.{name}")


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
