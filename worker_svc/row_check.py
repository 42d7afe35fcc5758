"""Whether a request's data is sane for the model: the last look before it becomes tensors.

Gateways and the scheduler check all of this. What comes through all the same (a gateway of another version,
an inbox that something else wrote to) would be an index beyond a table, which stops the rank and with it all
streams, or a number that makes nonsense of the row. Such a request is run as a stand-in that cannot be
sampled: its row fails like one whose logits are not numbers, on every rank alike, and the step goes on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from albireo.plan import Admission, SamplingParams

# Bounds of the API's reference; a float of the log may lie a rounding above.
RANGES = {
    "temperature": (0.0, 100.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    "repetition_penalty": (0.0, 100.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}
NOT_ZERO = ("top_p", "typical_p", "repetition_penalty")
MOST_BIAS = 100.0
MAX_LOGPROBS = 20

_NOTHING = SamplingParams(max_tokens=1, seed=0, temperature=0.0, allowed_ids=(0,), bad_ids=(0,))
"""Leaves no token to choose, which the sampler marks as failed."""


def fault_of(admission: Admission, vocab_size: int) -> str:
    """What is wrong with a request, by the name of its field; empty for one that can be run."""
    return next(_faults(admission, vocab_size), "")


def stand_in(admission: Admission, vocab_size: int) -> Admission:
    """The same request as one whose row fails. Ids that exist stay, so that blocks which others may share
    through the prefix cache hold what their hashes say."""
    tokens = tuple(token if 0 <= token < vocab_size else 0 for token in admission.tokens)
    return replace(admission, tokens=tokens, sampling=_NOTHING)


def _faults(admission: Admission, vocab_size: int) -> Iterator[str]:
    sampling = admission.sampling
    ids = {
        "prompt": admission.tokens,
        "stop_ids": sampling.stop_ids,
        "logit_bias": [token for token, _ in sampling.logit_bias],
        "allowed_ids": sampling.allowed_ids,
        "bad_ids": sampling.bad_ids,
    }
    for name, listed in ids.items():
        if (found := _beyond(listed, vocab_size)) is not None:
            yield f"{name}: {found} is not below the vocabulary's {vocab_size}"
    for name, (low, high) in RANGES.items():
        value = getattr(sampling, name)
        if not low <= value <= high or (value == 0 and name in NOT_ZERO):  # NaN lies between no bounds
            yield f"{name}: {value}"
    if any(not abs(bias) <= MOST_BIAS for _, bias in sampling.logit_bias):
        yield "logit_bias: out of range"
    for name in ("logprobs", "prompt_logprobs"):
        if not -1 <= getattr(sampling, name) <= min(MAX_LOGPROBS, vocab_size):
            yield f"{name}: {getattr(sampling, name)}"
    if not 0 <= sampling.seed < 2**64:
        yield f"seed: {sampling.seed}"
    if not (0 <= sampling.top_k < 2**31 and sampling.min_tokens >= 0):
        yield f"top_k: {sampling.top_k}, min_tokens: {sampling.min_tokens}"


def _beyond(ids: Collection[int], vocab_size: int) -> int | None:
    """One that no row of the embedding has; by the extremes, which for a long prompt is much faster."""
    extremes = min(ids, default=0), max(ids, default=0)
    return next((token for token in extremes if not 0 <= token < vocab_size), None)
