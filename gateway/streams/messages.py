"""Divides the pending tokens of a slow reader into messages far below 1 MiB. Called by each branch."""

from __future__ import annotations

from collections.abc import Sequence

from albireo.v1 import inference_pb2 as api

PART_TOKENS = 1_024
"""Most tokens in one message. An id has 5 bytes."""
PART_TEXT_BYTES = 524_288
"""Most bytes of text in one message: it has fewer tokens if the vocabulary has very long ones."""
PART_BYTES = 65_536
"""Approximate bytes of log-probabilities in one message: 20 of each of 380 tokens."""


def tokens_that_fit(logprobs: Sequence[bytes], longest_text: int) -> int:
    """How many tokens go into the next message.

    ``logprobs``: of the pending tokens, encoded; empty if not requested. ``longest_text``: most bytes of any
    token's text.
    """
    most = max(1, min(PART_TOKENS, PART_TEXT_BYTES // longest_text))
    size = 0
    for count, encoded in enumerate(logprobs[:most]):
        size += len(encoded)
        if size > PART_BYTES:
            return max(count, 1)
    return most


def parsed(logprobs: Sequence[bytes]) -> list[api.TokenLogprobs]:
    """The messages that ``logprobs`` encode."""
    return [api.TokenLogprobs.FromString(encoded) for encoded in logprobs]
