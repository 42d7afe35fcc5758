"""Plain data to and from the protobuf entries of the logs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain, islice
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from albireo.contract.plan import (
    Admission,
    Chunk,
    Ended,
    Finish,
    Grant,
    Plan,
    StepResult,
    Submission,
)
from albireo.contract.result_rows import rows_of
from albireo.contract.sampling_codec import sampling_from_proto, sampling_to_proto
from albireo.contract.tier_codec import (
    add_streamed_to_plan,
    add_to_plan,
    contents_from_proto,
    fetches_from_proto,
    lost_from_proto,
    offloads_from_proto,
    read_from_proto,
    spans_from_proto,
    spills_from_proto,
)
from albireo.v1 import control_pb2 as control
from albireo.v1 import log_pb2 as log

Parsed = TypeVar("Parsed", bound=Message)

FINISHES = bytes(Finish)


def submission_to_bytes(submission: Submission) -> bytes:
    """The inbox entry of a request; a timeout is rounded up to a millisecond, 0 stands for none."""
    timeout_ms = 0 if submission.timeout_s is None else max(1, round(submission.timeout_s * 1000))
    return log.InboxEntry(
        submission=log.Submission(
            request_id=submission.request_id,
            prompt=submission.prompt,
            sampling=sampling_to_proto(submission.sampling),
            priority=submission.priority,
            timeout_ms=timeout_ms,
            n=submission.n,
            tenant=submission.tenant,
            traceparent=submission.traceparent,
            gateway=submission.gateway,
        )
    ).SerializeToString()


def cancellation_to_bytes(name: str) -> bytes:
    """``name``: a request's, which ends all its branches, or one branch's."""
    return log.InboxEntry(cancellation=log.Cancellation(request_id=name)).SerializeToString()


def inbox_from_bytes(data: bytes) -> Submission | str:
    """A submission, or the name of the request or branch to cancel. Raises ValueError for anything else."""
    entry = _entry(log.InboxEntry, data, "neither a submission nor a cancellation")
    if entry.WhichOneof("entry") == "cancellation":
        return entry.cancellation.request_id
    message = entry.submission
    return Submission(
        request_id=message.request_id,
        prompt=tuple(message.prompt[:]),  # a slice of it is made faster than an iteration goes
        sampling=sampling_from_proto(message.sampling),
        priority=message.priority,
        timeout_s=message.timeout_ms / 1000 if message.timeout_ms else None,
        n=message.n or 1,
        tenant=message.tenant,
        traceparent=message.traceparent,
        gateway=message.gateway,
    )


def finish_name(finish: Finish) -> str:
    """Name of the reason in ``albireo.v1.FinishReason``, which messages take for its value."""
    return f"FINISH_REASON_{finish.name}"


def ended_to_proto(ended: Iterable[Ended]) -> list[log.Ended]:
    return [log.Ended(request_id=e.request_id, reason=finish_name(e.reason)) for e in ended]


def plan_to_bytes(plan: Plan, timing: control.StepTiming | None = None) -> bytes:
    """The plan log's entry; epoch and step travel in the entry's id."""
    entry = log.PlanEntry()
    message = entry.plan
    message.SetInParent()  # also where nothing is set
    message.num_decodes = plan.num_decodes
    if timing is not None:
        message.timing.CopyFrom(timing)
    if plan.digest is not None:
        message.digest = plan.digest
    # Most fields of most plans are empty, and each that is looked at costs time.
    for name in ("released", "paused", "resumed"):
        if slots := getattr(plan, name):
            getattr(message, name).extend(slots)
    if plan.grants:
        message.grant_slots.extend([slot for slot, _ in plan.grants])
        message.grant_counts.extend([len(blocks) for _, blocks in plan.grants])
        message.grant_blocks.extend(chain.from_iterable([blocks for _, blocks in plan.grants]))
    for a in plan.admissions:
        message.admissions.add(
            slot=a.slot,
            incarnation=a.incarnation,
            request_id=a.request_id,
            tokens=a.tokens,
            num_outputs=a.num_outputs,
            num_cached=a.num_cached,
            sampling=sampling_to_proto(a.sampling),
            traceparent=a.traceparent,
        )
    for c in plan.chunks:
        message.chunks.add(slot=c.slot, start=c.start, count=c.count)
    if plan.ended:
        message.ended.extend(ended_to_proto(plan.ended))
    if plan.spills or plan.fetches:
        add_to_plan(message, plan.spills, plan.fetches)
    if plan.offloads or plan.spans:
        add_streamed_to_plan(message, plan.offloads, plan.spans)
    return entry.SerializeToString()


def plan_from_bytes(data: bytes) -> log.PlanEntry:
    """An entry of the plan log; :func:`plan_from_proto` checks its plan. Raises ValueError for no entry."""
    return _entry(log.PlanEntry, data, "neither a plan nor an opening")


def plan_from_proto(epoch: int, step: int, message: log.Plan) -> Plan:
    """Raises ValueError where its parts do not fit together."""
    found = {field.name: value for field, value in message.ListFields()}  # most are empty: not looked at
    return Plan(
        epoch=epoch,
        step=step,
        released=tuple(found.get("released", ())),
        paused=tuple(found.get("paused", ())),
        resumed=tuple(found.get("resumed", ())),
        spills=spills_from_proto(found.get("spills", ())),
        admissions=tuple([_admission_from_proto(a) for a in found.get("admissions", ())]),
        fetches=fetches_from_proto(found.get("fetches", ())),
        offloads=offloads_from_proto(found.get("offloads", ())),
        grants=_grants_from_proto(message),
        chunks=tuple([Chunk(c.slot, c.start, c.count) for c in found.get("chunks", ())]),
        spans=spans_from_proto(found.get("spans", ())),
        ended=tuple([Ended(e.request_id, Finish(e.reason)) for e in found.get("ended", ())]),
        num_decodes=message.num_decodes,
        digest=found.get("digest"),
    )


def _admission_from_proto(message: log.Admission) -> Admission:
    return Admission(
        slot=message.slot,
        incarnation=message.incarnation,
        request_id=message.request_id,
        tokens=tuple(message.tokens[:]),
        num_outputs=message.num_outputs,
        num_cached=message.num_cached,
        sampling=sampling_from_proto(message.sampling),
        traceparent=message.traceparent,
    )


_grant: Callable[[tuple[int, tuple[int, ...]]], Grant] = partial(tuple.__new__, Grant)
"""``Grant`` of a pair: the class itself takes longer, and a step has many of them."""


def _grants_from_proto(message: log.Plan) -> tuple[Grant, ...]:
    """Raises ValueError where slots, counts and blocks do not fit."""
    slots, counts, blocks = message.grant_slots[:], message.grant_counts[:], message.grant_blocks[:]
    if len(slots) != len(counts) or sum(counts) != len(blocks):
        raise ValueError(
            f"{len(slots)} grants with {len(counts)} counts, {sum(counts)} in all, and {len(blocks)} blocks"
        )
    if len(blocks) == len(slots) and 0 not in counts:  # as of rows that decode
        return tuple(map(_grant, zip(slots, zip(blocks, strict=True), strict=True)))
    rest = iter(blocks)
    return tuple(
        [_grant((slot, tuple(islice(rest, count)))) for slot, count in zip(slots, counts, strict=True)]
    )


def result_from_bytes(data: bytes) -> log.ResultEntry:
    """An entry of the results log whose parts fit together. Raises ValueError for any other."""
    entry = _entry(log.ResultEntry, data, "neither a result, an opening nor a closing")
    result = entry.result
    rows = len(result.finishes)
    sizes = len(result.slots), len(result.incarnations), len(result.ids)
    if sizes != (4 * rows, 8 * rows, 4 * rows):
        raise ValueError(f"{rows} rows with columns of {sizes} bytes")
    if result.logprobs or result.prompt_logprobs:
        _check_logprobs(result, rows)
    unknown = {*result.finishes.translate(None, FINISHES)}
    unknown |= {ended.reason for ended in result.ended}.difference(FINISHES)
    if unknown:
        raise ValueError(f"no finish has the values {sorted(unknown)}")
    return entry


def _check_logprobs(result: log.StepResult, rows: int) -> None:
    last = max((row.row for row in result.logprobs), default=-1)
    if last >= rows:
        raise ValueError(f"{rows} rows with log-probabilities of row {last}")
    found = [row.logprobs for row in result.logprobs]
    found += [token for prompt in result.prompt_logprobs for token in prompt.logprobs]
    if any(len(token.top_ids) != len(token.top_logprobs) for token in found):
        raise ValueError("token ids and log-probabilities differ in number")


def group_from_bytes(data: bytes) -> log.GroupInfo:
    """What a group announces. Raises ValueError where that cannot be read."""
    return _parsed(log.GroupInfo, data)


def model_from_bytes(data: bytes) -> log.ServedModel:
    """What is common to all groups of a model. Raises ValueError where that cannot be read."""
    return _parsed(log.ServedModel, data)


def notice_from_bytes(data: bytes) -> log.Notice:
    """An entry of the notices. Raises ValueError for any other."""
    notice = _entry(log.Notice, data, "neither an opening, a closing nor an end")
    unknown = {ended.reason for ended in notice.ended.ended}.difference(FINISHES)
    if unknown:
        raise ValueError(f"no finish has the values {sorted(unknown)}")
    return notice


def _entry(kind: type[Parsed], data: bytes, otherwise: str) -> Parsed:
    entry = _parsed(kind, data)
    if entry.WhichOneof("entry") is None:
        raise ValueError(otherwise)
    return entry


def _parsed(kind: type[Parsed], data: bytes) -> Parsed:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise ValueError(f"no valid message: {error}") from error


def result_from_proto(epoch: int, step: int, message: log.StepResult) -> StepResult:
    """What the scheduler needs of a result; a gateway reads the message itself. Raises ValueError where what
    it says about tiers does not fit together."""
    rows = rows_of(message)
    if not (message.read or message.lost or message.contents or message.contents_end or message.unfetched):
        return StepResult(epoch, step, *rows)
    return StepResult(
        epoch,
        step,
        *rows,
        unfetched=tuple(message.unfetched),
        lost=lost_from_proto(message.lost),
        read=read_from_proto(message.read),
        contents=contents_from_proto(message.contents),
        contents_end=message.contents_end,
    )
