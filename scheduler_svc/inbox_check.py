"""Checks the entries of the inbox again, since anything that can write into Redis can write into it.

Called by the scheduler's thread for each entry. A gateway refuses invalid requests and tells the client why.
Here the reason is only logged: no entry may end the scheduler, and ranks must not get an id or a number that
their tensors cannot hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from albireo.contract import bounds, codec
from albireo.contract.plan import MAX_BRANCHES, Submission

_NAME = re.compile(f"{bounds.IDENTIFIER.pattern}(@{bounds.IDENTIFIER.pattern})?")
_BRANCH = re.compile(_NAME.pattern + r"(#[0-9]{1,2})?")
MAX_TRACEPARENT = 64


class BadEntry(ValueError):
    """An invalid entry of the inbox. ``submission``: set where the entry names a request, which can then be
    ended for its gateway."""

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
            raise BadEntry("a cancellation of an invalid name")
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
    yield from bounds.id_faults("prompt", submission.prompt, vocab_size)  # the core checks its length
    for field, ids in (
        ("stop_ids", sampling.stop_ids),
        ("logit_bias", sampling.logit_bias),
        ("allowed_ids", sampling.allowed_ids),
        ("bad_ids", sampling.bad_ids),
    ):
        if len(ids) > bounds.MAX_TOKEN_IDS:
            yield f"{field}: {len(ids)} ids"
    if not sampling.min_tokens <= sampling.max_tokens or sampling.max_tokens < 1:
        yield f"max_tokens: {sampling.max_tokens}, with min_tokens {sampling.min_tokens}"
    yield from bounds.sampling_faults(sampling, vocab_size)
