"""What is pending for a slow reader, cut into messages that stay far below 1 MiB."""

from __future__ import annotations

from collections.abc import Sequence

from albireo.v1 import inference_pb2 as api

PART_TOKENS = 1_024
"""Tokens of one message at most. An id has 5 bytes, the text of a token seldom more than 128."""
PART_BYTES = 65_536
"""Of log-probabilities in one message, about: 20 of each of 380 tokens."""


def tokens_that_fit(logprobs: Sequence[bytes]) -> int:
    """How many tokens go into the next message. ``logprobs``: theirs, encoded; none where not asked for."""
    size = 0
    for count, encoded in enumerate(logprobs[:PART_TOKENS]):
        size += len(encoded)
        if size > PART_BYTES:
            return max(count, 1)
    return PART_TOKENS


def parsed(logprobs: Sequence[bytes]) -> list[api.TokenLogprobs]:
    return [api.TokenLogprobs.FromString(encoded) for encoded in logprobs]
