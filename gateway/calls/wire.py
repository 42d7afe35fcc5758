"""Counts the fields of an encoded message before it is parsed: parsing may cost a hundred times its size.

Four megabytes of empty messages are two million objects. The scan of the encoding
(https://protobuf.dev/programming-guides/encoding/) stops as soon as there are too many fields. The
interceptor calls it, on a work thread.
"""

from __future__ import annotations

from functools import cache

from google.protobuf.descriptor import Descriptor

from gateway.calls.refusal import invalid

MAX_FIELDS = 65_536
"""Most fields of a request, including those of all messages in it. Packed numbers are one field."""
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def check_fields(data: bytes, descriptor: Descriptor) -> None:
    """Raises Refusal for more than MAX_FIELDS fields. The parser deals with an invalid encoding."""
    _remaining(data, 0, len(data), descriptor, MAX_FIELDS)


def _remaining(data: bytes, at: int, end: int, descriptor: Descriptor | None, remaining: int) -> int:
    """``remaining`` fields are allowed; returns how many are after those from byte ``at`` to byte ``end``."""
    messages = _messages(descriptor) if descriptor is not None else {}
    while at < end:
        remaining -= 1
        if remaining < 0:
            raise invalid("message", f"more than {MAX_FIELDS} fields; send numbers packed")
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(data, at)
        elif kind == _LENGTH:
            length, at = _varint(data, at)
            inner = messages.get(tag >> 3)
            if inner is not None:
                remaining = _remaining(data, at, min(at + length, end), inner, remaining)
            at += length
        else:  # the start and end tags of a group have no payload
            at += {_FIXED64: 8, _FIXED32: 4}.get(kind, 0)
    return remaining


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and the position after it. Bytes after the end of ``data`` count as zero."""
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128 or shift > 63:
            break
        shift += 7
    return value, at


@cache
def _messages(descriptor: Descriptor) -> dict[int, Descriptor]:
    """The fields that are messages, by number. An item of a map counts as one field."""
    return {
        field.number: field.message_type
        for field in descriptor.fields
        if field.message_type is not None and not field.message_type.GetOptions().map_entry
    }
