"""What comes in through the inbox, checked again: whoever can write into Redis can write into it.

A gateway refuses what clients may not ask for and tells them why. Here no more is told than that it was
refused: what matters is that no entry ends the scheduler, and that no id or number reaches the ranks which
their tensors cannot take.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from albireo import bounds, codec
from albireo.plan import MAX_BRANCHES, SamplingParams, Submission

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}(@[A-Za-z0-9._-]{1,64})?")
_BRANCH = re.compile(_NAME.pattern + r"(#[0-9]{1,2})?")
MAX_TRACEPARENT = 64


class BadEntry(ValueError):
    """An entry of the inbox that nothing comes of. ``submission``: what its gateway waits for, if it has a
    name by which that can be ended."""

    def __init__(self, problem: str, submission: Submission | None = None) -> None:
        super().__init__(problem)
        self.submission = submission


def inbox_entry(data: bytes, vocab_size: int) -> Submission | str:
    """A submission within all bounds, or the name of the request or branch to cancel. Raises BadEntry."""
    try:
        entry = codec.inbox_from_bytes(data)
    except ValueError as error:
        raise BadEntry(str(error)) from error
    if isinstance(entry, str):
        if not _BRANCH.fullmatch(entry):
            raise BadEntry("a cancellation of what is no name")
        return entry
    if not _NAME.fullmatch(entry.request_id):
        raise BadEntry("request_id: not a name")
    if not 1 <= entry.n <= MAX_BRANCHES:
        raise BadEntry(f"n: {entry.n}; 1 to {MAX_BRANCHES}")
    for problem in _problems(entry, vocab_size):
        raise BadEntry(problem, entry)
    return entry


def _problems(submission: Submission, vocab_size: int) -> Iterator[str]:
    sampling = submission.sampling
    for field in ("tenant", "gateway"):
        text = getattr(submission, field)
        if not bounds.IDENTIFIER.fullmatch(text) and (field == "tenant" or text):
            yield f"{field}: not 1 to 64 characters of [A-Za-z0-9._-]"
    if len(submission.traceparent) > MAX_TRACEPARENT:
        yield f"traceparent: {len(submission.traceparent)} characters"
    if abs(submission.priority) > bounds.MAX_PRIORITY:
        yield f"priority: {submission.priority}"
    if (submission.timeout_s or 0) > bounds.MAX_DEADLINE_SECONDS:
        yield f"timeout: {submission.timeout_s:g} s"
    yield from _bad_ids("prompt", submission.prompt, vocab_size, most=None)
    yield from _bad_ids("stop_ids", sampling.stop_ids, vocab_size)
    yield from _bad_ids("bias_ids", [token for token, _ in sampling.logit_bias], vocab_size)
    yield from _bad_ids("allowed_ids", sampling.allowed_ids, vocab_size)
    yield from _bad_ids("bad_ids", sampling.bad_ids, vocab_size)
    yield from _bad_numbers(sampling)


def _bad_ids(
    field: str, ids: tuple[int, ...] | list[int], vocab_size: int, most: int | None = bounds.MAX_TOKEN_IDS
) -> Iterator[str]:
    """The length of the prompt is for the core to check, which knows the context."""
    if most is not None and len(ids) > most:
        yield f"{field}: {len(ids)} ids"
    largest = max(ids, default=0)
    if largest >= vocab_size:
        yield f"{field}: {largest} is not below the vocabulary's {vocab_size}"


def _bad_numbers(sampling: SamplingParams) -> Iterator[str]:
    if not 0 <= sampling.min_tokens <= sampling.max_tokens or sampling.max_tokens < 1:
        yield f"max_tokens: {sampling.max_tokens}, with min_tokens {sampling.min_tokens}"
    if sampling.top_k > bounds.MAX_TOP_K:
        yield f"top_k: {sampling.top_k}"
    for field in ("logprobs", "prompt_logprobs"):
        if not -1 <= getattr(sampling, field) <= bounds.MAX_LOGPROBS:
            yield f"{field}: {getattr(sampling, field)}"
    for field, limits in bounds.RANGES.items():
        value = getattr(sampling, field)
        if not _within(value, limits) or (value == 0 and field in bounds.NOT_ZERO):
            yield f"{field}: {value:g}"
    for _, bias in sampling.logit_bias:
        if not _within(bias, bounds.BIAS_RANGE):
            yield f"biases: {bias:g}"


def _within(value: float, limits: tuple[float, float]) -> bool:
    return math.isfinite(value) and limits[0] <= value <= limits[1]
