"""The plan of one step and the result of one step, as plain data.

A plan is a delta: it says what changes in the slot table that the scheduler and every rank hold. Rows
that decode carry on by themselves, so a plan's size follows what changes, not what runs.

Every reader applies the fields of a plan in the order in which they stand in :class:`Plan`. The step
then runs one row for each slot in the decode set, ascending by slot, and the rows of every chunk, in
the order of the plan; and with them the rows of every span, each in the layers of its span.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple

from albireo.contract.tiers import Contents, Fetch, Frames, Offload, Span, Spill, TierRead, TierShape

BLOCK_SIZE = 16
"""Tokens in one KV block."""

MAX_BRANCHES = 16
"""Most answers that one request may ask for."""


DEFAULT_TENANT = "default"
"""Whose a request is that names no tenant."""


class Finish(IntEnum):
    """Why a request ended. The values are those of ``albireo.v1.FinishReason``."""

    NONE = 0
    STOP = 1  # EOS, a stop token id or a stop string
    LENGTH = 2  # max_tokens, or the model's context is full
    CANCELLED = 3
    DEADLINE = 4
    ERROR = 5  # this request alone could not go on: its data or its logits were invalid


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one request's tokens are chosen. Defaults are resolved by the gateway; nothing is optional here."""

    max_tokens: int
    seed: int  # unsigned 64 bit
    min_tokens: int = 0
    temperature: float = 1.0  # 0 = greedy
    top_k: int = 0  # 0 = off
    top_p: float = 1.0
    min_p: float = 0.0
    stop_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int = -1  # -1 = none, else how many of the most likely tokens in addition to the sampled one
    prompt_logprobs: int = -1  # likewise, for every token of the prompt but the first
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token id, what is added to its logit)
    allowed_ids: tuple[int, ...] = ()  # empty = all
    bad_ids: tuple[int, ...] = ()  # never drawn


@dataclass(frozen=True, slots=True)
class Submission:
    """One accepted request, as the scheduler reads it from the inbox.

    It runs as ``n`` branches, each of them a request in plans and results: see :func:`branches`.
    ``request_id`` is its name there, unique to this acceptance: see :func:`accepted_name`.
    """

    request_id: str
    prompt: tuple[int, ...]
    sampling: SamplingParams
    priority: int = 0  # lower runs earlier
    timeout_s: float | None = None  # counted from its entry in the inbox, in the store's time
    n: int = 1
    tenant: str = DEFAULT_TENANT
    traceparent: str = ""  # names the request's trace if that is recorded; opaque here
    gateway: str = ""  # whose clients wait for it; empty: it does not depend on any


@dataclass(frozen=True, slots=True)
class Admission:
    """A request takes a slot.

    ``tokens`` is the prompt, followed after a preemption by the outputs so far (``num_outputs`` of
    them). The KV of the first ``num_cached`` tokens lies in the first blocks already, or is fetched into
    them.
    """

    slot: int
    incarnation: int  # unique within the epoch; names this occupancy of the slot in results
    request_id: str
    tokens: tuple[int, ...]
    num_outputs: int
    num_cached: int
    sampling: SamplingParams
    traceparent: str = ""  # the submission's


class Grant(NamedTuple):
    """Blocks appended to a slot's block table."""

    slot: int
    blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """``tokens[start : start + count]`` of a slot are prefilled.

    The chunk that reaches the last token also samples, and puts the slot into the decode set from the
    next step on.
    """

    slot: int
    start: int
    count: int


class Ended(NamedTuple):
    """A request that ends by the scheduler's decision; rank 0 repeats it in the results log."""

    request_id: str
    reason: Finish


@dataclass(frozen=True, slots=True)
class Plan:
    """What one step changes and runs. Applied in field order; see the module's text."""

    epoch: int
    step: int
    released: tuple[int, ...] = ()  # slots that are free from here on
    paused: tuple[int, ...] = ()  # slots that leave the decode set and keep their state
    resumed: tuple[int, ...] = ()  # slots that come back into it
    spills: tuple[Spill, ...] = ()
    admissions: tuple[Admission, ...] = ()
    fetches: tuple[Fetch, ...] = ()
    offloads: tuple[Offload, ...] = ()
    grants: tuple[Grant, ...] = ()
    chunks: tuple[Chunk, ...] = ()
    spans: tuple[Span, ...] = ()
    ended: tuple[Ended, ...] = ()
    num_decodes: int = 0  # size of the decode set after all of the above: every rank checks it
    digest: int | None = None  # of the table after all of the above, now and then: every rank checks it


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step brought: one row per sampled token that counts. Parallel tuples.

    Rows of a request after its finishing row are left out by the worker.
    """

    epoch: int
    step: int
    slots: tuple[int, ...] = ()
    incarnations: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()
    finishes: tuple[int, ...] = ()  # Finish values
    unfetched: tuple[int, ...] = ()  # incarnations that lack KV of a fetch: their rows do not count
    lost: tuple[Frames, ...] = ()  # that hold nothing: they could not be written, or not be read
    read: tuple[TierRead, ...] = ()
    contents: tuple[Contents, ...] = ()  # of the tiers when the epoch began, in portions, one in each step
    contents_end: bool = False  # the last portion


@dataclass(frozen=True, slots=True)
class GroupShape:
    """What a worker group can hold; it announces this when it registers."""

    num_blocks: int
    max_seqs: int  # slots
    max_model_len: int  # prompt and output tokens of one request
    tiers: tuple[TierShape, ...] = ()  # below the blocks, the fastest first
    num_layers: int = 0  # of the model; 0: unknown, and no slot is streamed


def accepted_name(request_id: str, suffix: str) -> str:
    """What a request is called in the logs. The client's id can be accepted again, with another ``suffix``:
    what comes of an earlier acceptance is then not taken for the later one's. Ids have no ``@``."""
    return f"{request_id}@{suffix}"


def public_name(name: str) -> str:
    """The name of a request or a branch as people know it: the client's id, with the branch's ``#k``."""
    request_id, _, rest = name.partition("@")
    _, mark, branch = rest.partition("#")
    return request_id + mark + branch


def branch_names(request_id: str, n: int) -> tuple[str, ...]:
    """What the branches of a request are called in plans and results; one alone keeps its name.

    No request id has a ``#``, so no other request has these names.
    """
    return (request_id,) if n == 1 else tuple(f"{request_id}#{branch}" for branch in range(n))


def branch_seed(seed: int, branch: int) -> int:
    """Seed of a branch: the request's own for branch 0, else splitmix64's ``branch``-th number after it."""
    if branch == 0:
        return seed
    bits = (seed + branch * 0x9E3779B97F4A7C15) % 2**64
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB % 2**64
    return bits ^ bits >> 31


def branches(submission: Submission) -> tuple[Submission, ...]:
    """The branches of a request, each as a request of its own; the log-probabilities of the prompt, which
    all have in common, are reported by the first alone."""
    if submission.n == 1:
        return (submission,)
    sampling = submission.sampling
    return tuple(
        replace(
            submission,
            request_id=name,
            n=1,
            sampling=replace(
                sampling,
                seed=branch_seed(sampling.seed, branch),
                prompt_logprobs=-1 if branch else sampling.prompt_logprobs,
            ),
        )
        for branch, name in enumerate(branch_names(submission.request_id, submission.n))
    )


def blocks_for(tokens: int) -> int:
    """Number of KV blocks that hold ``tokens`` tokens."""
    return -(-tokens // BLOCK_SIZE)


def finish_of(
    sampling: SamplingParams,
    token: int,
    num_outputs: int,
    num_tokens: int,
    *,
    eos_ids: frozenset[int],
    max_model_len: int,
) -> Finish:
    """Decides whether a request ends with ``token``, its ``num_outputs``-th output token.

    ``num_tokens`` counts prompt and outputs, this one included. Below ``min_tokens`` the sampler never
    draws an end token, so there is nothing to decide here for it.
    """
    if (token in eos_ids and not sampling.ignore_eos) or token in sampling.stop_ids:
        return Finish.STOP
    if num_outputs >= sampling.max_tokens or num_tokens >= max_model_len:
        return Finish.LENGTH
    return Finish.NONE


def table_digest(rows: Iterable[tuple[int, int, int, int, int]]) -> int:
    """64-bit digest of a slot table.

    ``rows`` yields ``(slot, incarnation, tokens scheduled for compute, number of blocks, last block)`` of
    every occupied slot, ascending by slot; the last block is -1 where there is none. Of a streamed slot the
    blocks on the device count, and its rows are scheduled when their last layer is.
    """
    state = hashlib.blake2b(digest_size=8)
    for row in rows:
        state.update(struct.pack("<5q", *row))
    return int.from_bytes(state.digest(), "little")
