"""What a request may ask for: the ranges that the public API promises, for all who check them.

Gateways check what clients send and name the field of the API; the scheduler checks what it finds in the
inbox, and workers what they find in plans: anything that can write into Redis can write there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final

from albireo.contract.plan import SamplingParams

IDENTIFIER: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""Request ids, tenants."""
MAX_PRIORITY: Final = 100
MAX_DEADLINE_SECONDS: Final = 86_400
MAX_LOGPROBS: Final = 20
MAX_STOP_IDS: Final = 64
MAX_TOKEN_IDS: Final = 1024
"""Most entries of logit_bias, allowed_token_ids and bad_token_ids each."""
RANGES: Final[dict[str, tuple[float, float]]] = {
    "temperature": (0, 100),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "typical_p": (0, 1),
    "repetition_penalty": (0.009999999776482582, 100),  # 0.01 as a float
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
NOT_ZERO: Final = ("top_p", "typical_p")
BIAS_RANGE: Final[tuple[float, float]] = (-100, 100)
MAX_TOP_K: Final = 2**31 - 1


def sampling_faults(sampling: SamplingParams, vocab_size: int) -> Iterator[str]:
    """What is out of bounds, by the name of the field; nothing where all can be computed. NaN lies between no
    bounds."""
    for field, ids in (
        ("stop_ids", sampling.stop_ids),
        ("logit_bias", [token for token, _ in sampling.logit_bias]),
        ("allowed_ids", sampling.allowed_ids),
        ("bad_ids", sampling.bad_ids),
    ):
        if ids:
            yield from id_faults(field, ids, vocab_size)
    for field, (low, high) in RANGES.items():
        value = getattr(sampling, field)
        if not low <= value <= high or (value == 0 and field in NOT_ZERO):
            yield f"{field}: {value:g}"
    low, high = BIAS_RANGE
    for _, bias in sampling.logit_bias:
        if not low <= bias <= high:
            yield f"logit_bias: {bias:g}"
    for field in ("logprobs", "prompt_logprobs"):
        if not -1 <= getattr(sampling, field) <= min(MAX_LOGPROBS, vocab_size):
            yield f"{field}: {getattr(sampling, field)}"
    if not 0 <= sampling.seed < 2**64:
        yield f"seed: {sampling.seed}"
    if not 0 <= sampling.top_k <= MAX_TOP_K:
        yield f"top_k: {sampling.top_k}"
    if sampling.min_tokens < 0:
        yield f"min_tokens: {sampling.min_tokens}"


def id_faults(field: str, ids: Collection[int], vocab_size: int) -> Iterator[str]:
    """An id that no row of the embedding has; by the extremes, which for a long prompt is much faster."""
    for token in (min(ids, default=0), max(ids, default=0)):
        if not 0 <= token < vocab_size:
            yield f"{field}: {token} is not below the vocabulary's {vocab_size}"
