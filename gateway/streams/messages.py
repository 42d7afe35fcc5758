"""What is pending for a slow reader, cut into messages that stay far below 1 MiB."""

from __future__ import annotations

from collections.abc import Sequence

from albireo.v1 import inference_pb2 as api

PART_TOKENS = 1_024
"""Tokens of one message at most. An id has 5 bytes."""
PART_TEXT_BYTES = 524_288
"""Of text in one message at most: fewer tokens go into it where the vocabulary has very long ones."""
PART_BYTES = 65_536
"""Of log-probabilities in one message, about: 20 of each of 380 tokens."""


def tokens_that_fit(logprobs: Sequence[bytes], longest_text: int) -> int:
    """How many tokens go into the next message.

    ``logprobs``: theirs, encoded; none where not asked for. ``longest_text``: bytes of any token's text.
    """
    most = max(1, min(PART_TOKENS, PART_TEXT_BYTES // longest_text))
    size = 0
    for count, encoded in enumerate(logprobs[:most]):
        size += len(encoded)
        if size > PART_BYTES:
            return max(count, 1)
    return most


def parsed(logprobs: Sequence[bytes]) -> list[api.TokenLogprobs]:
    return [api.TokenLogprobs.FromString(encoded) for encoded in logprobs]
