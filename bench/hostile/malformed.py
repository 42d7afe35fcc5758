"""Malformed calls, which no client library would send; the same for the same seed."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from google.protobuf.descriptor import FieldDescriptor

from albireo.v1 import inference_pb2 as api
from bench.hostile.http2 import message

INFERENCE, CONTROL = "/albireo.v1.Inference/", "/albireo.v1.Control/"
METHODS = (
    *(INFERENCE + name for name in ("Generate", "Tokenize", "Detokenize", "Cancel")),
    *(CONTROL + name for name in ("GetServerInfo", "GetModelInfo", "GetLoad", "GetStepStats")),
    "/grpc.health.v1.Health/Check",
)
Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Call:
    """The bytes of one call."""

    method: str
    body: bytes
    headers: Headers = ()
    transport: bool = False
    """gRPC's transport answers before any code of the gateway runs: with INTERNAL for what it cannot
    decompress, as gRPC's doc/statuscodes.md says, and for headers that it cannot parse."""


def random_bytes(draw: random.Random) -> Call:
    return Call(draw.choice(METHODS), message(draw.randbytes(draw.randrange(300))))


def flipped_bits(draw: random.Random) -> Call:
    data = bytearray(_valid(draw))
    for _ in range(draw.randrange(1, 6)):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return Call(INFERENCE + "Generate", message(bytes(data)))


def cut_short(draw: random.Random) -> Call:
    data = _valid(draw)
    return Call(INFERENCE + "Generate", message(data[: draw.randrange(1, len(data))]))


def cut_frame(draw: random.Random) -> Call:
    """The prefix promises more than comes before the end of the stream."""
    data = message(_valid(draw))
    return Call(draw.choice(METHODS), data[: draw.randrange(1, len(data))])


def not_utf8(draw: random.Random) -> Call:
    return Call(
        INFERENCE + "Generate", message(b"\x1a\x04" + bytes((0xFF, 0xFE, 0xC0, draw.randrange(128, 256))))
    )


def wrong_types(draw: random.Random) -> Call:
    """Every field number with a wire type that it does not have."""
    tags = (bytes((draw.randrange(1, 16) << 3 | draw.choice((0, 1, 2, 5)),)) for _ in range(8))
    return Call(draw.choice(METHODS), message(b"".join(tag + draw.randbytes(8) for tag in tags)))


def out_of_range(draw: random.Random) -> Call:
    options = api.SamplingOptions()
    fields = list(cast("Sequence[FieldDescriptor]", options.DESCRIPTOR.fields))
    for field in draw.sample(fields, 3):
        if field.message_type is None and not field.is_repeated:
            huge = draw.choice((2**31 - 1, 2**32 - 1)) if field.cpp_type in (1, 3) else None
            if huge is not None:
                setattr(options, field.name, huge)
    options.temperature = draw.choice((float("nan"), float("inf"), -1.0, 1e30))
    options.stop_token_ids.extend(draw.randrange(2**32) for _ in range(draw.randrange(100)))
    return Call(INFERENCE + "Generate", message(_request(draw, options).SerializeToString()))


def many_fields(draw: random.Random) -> Call:
    piece = draw.choice((b"\x2a\x02\x0a\x00", b"\x32\x02\x42\x00", b"\x22\x02\x08\x05", b"\xf8\x07\x01"))
    return Call(INFERENCE + "Generate", message(piece * draw.randrange(1, 3_500)))


def garbage_in_gzip(draw: random.Random) -> Call:
    body = draw.choice((draw.randbytes(50), gzip.compress(b"x" * 100)[:-9]))
    encoding: Headers = (("grpc-encoding", b"gzip"),) if draw.random() < 0.8 else ()
    return Call(draw.choice(METHODS), message(body, compressed=True), encoding, transport=True)


def unknown_encoding(draw: random.Random) -> Call:
    return Call(
        draw.choice(METHODS), message(b"x", compressed=True), (("grpc-encoding", b"rot13"),), transport=True
    )


def wrong_number(draw: random.Random) -> Call:
    return Call(draw.choice(METHODS), message(_valid(draw)) * draw.choice((0, 2, 3)))


def odd_headers(draw: random.Random) -> Call:
    header = draw.choice(
        (
            ("grpc-timeout", b"soon"),
            ("grpc-timeout", b"-5S"),
            ("traceparent", draw.randbytes(30).hex().encode()),
            ("x-large", b"x" * 5_000),
            ("x-binary-bin", b"!!!"),
        )
    )
    return Call(INFERENCE + "Tokenize", message(b"\x12\x01a"), (header,), transport=True)


def no_such_method(draw: random.Random) -> Call:
    return Call(draw.choice((INFERENCE + "Other", "/", "/x", INFERENCE, "/" + "a" * 3_000)), message(b""))


KINDS: tuple[Callable[[random.Random], Call], ...] = (
    *(random_bytes, flipped_bits, cut_short, cut_frame, not_utf8, wrong_types, out_of_range, many_fields),
    *(garbage_in_gzip, unknown_encoding, wrong_number, odd_headers, no_such_method),
)


def _request(draw: random.Random, options: api.SamplingOptions) -> api.GenerateRequest:
    options.max_tokens = 2  # some are valid by chance
    return api.GenerateRequest(text="What is " * draw.randrange(1, 9), sampling=options)


def _valid(draw: random.Random) -> bytes:
    return _request(draw, api.SamplingOptions(seed=draw.randrange(2**60), stop=["x"])).SerializeToString()
