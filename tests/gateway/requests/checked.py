"""Requests to the bundled model, and what the validator makes of them."""

from __future__ import annotations

import grpc
import pytest

from albireo.models import TINY
from albireo.v1 import inference_pb2 as api
from gateway.calls.refusal import Refusal
from gateway.requests.validation import Validator, ValidRequest
from gateway.text.text_codec import TextCodec

CODEC = TextCodec(TINY)
VALIDATOR = Validator(CODEC)
CONTEXT = 64
EOS = (1,)

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def generate(request: api.GenerateRequest, max_model_len: int = CONTEXT) -> ValidRequest:
    return VALIDATOR.generate(request, max_model_len, EOS)


def with_ids(count: int = 3, /, **sampling: object) -> api.GenerateRequest:
    options = api.SamplingOptions(**sampling)  # type: ignore[arg-type]
    return api.GenerateRequest(token_ids=api.TokenIds(ids=[7] * count), sampling=options)


def refusal_of(request: api.GenerateRequest) -> Refusal:
    with pytest.raises(Refusal) as raised:
        generate(request)
    return raised.value
