"""How many fields a message has, counted in its bytes: parsing it could cost a hundred times its size.

Four megabytes of empty messages are two million objects. The walk over the encoding
(https://protobuf.dev/programming-guides/encoding/) ends as soon as there are too many.
"""

from __future__ import annotations

from functools import cache

from google.protobuf.descriptor import Descriptor

from gateway.calls.refusal import invalid

MAX_FIELDS = 65_536
"""Most fields of a request, those of all messages in it counted. Packed numbers are one field."""
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def check_fields(data: bytes, descriptor: Descriptor) -> None:
    """Raises Refusal for more than MAX_FIELDS. What is no valid encoding is left to the parser."""
    _left(data, 0, len(data), descriptor, MAX_FIELDS)


def _left(data: bytes, at: int, end: int, descriptor: Descriptor | None, left: int) -> int:
    """How many more fields there may be behind those from ``at`` to ``end``."""
    messages = _messages(descriptor) if descriptor is not None else {}
    while at < end:
        left -= 1
        if left < 0:
            raise invalid("message", f"more than {MAX_FIELDS} fields; send numbers packed")
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(data, at)
        elif kind == _LENGTH:
            length, at = _varint(data, at)
            inner = messages.get(tag >> 3)
            if inner is not None:
                left = _left(data, at, min(at + length, end), inner, left)
            at += length
        else:  # the tags around a group have nothing of their own
            at += {_FIXED64: 8, _FIXED32: 4}.get(kind, 0)
    return left


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends; beyond the end of ``data`` all is zero."""
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
    """The fields that are messages, by number. An entry of a map counts as one field."""
    return {
        field.number: field.message_type
        for field in descriptor.fields
        if field.message_type is not None and not field.message_type.GetOptions().map_entry
    }
