"""The largest steps there can be. A runner on a GPU runs them when it starts, to measure their memory."""

from __future__ import annotations

from collections.abc import Iterator

from albireo.contract.plan import Admission, Chunk, Grant, Plan, SamplingParams, blocks_for

STEP_TOKENS = 8192
"""Rows of the prefill step: four times the scheduler's default, so that this may be raised."""
CHUNK = 512
"""Rows of one request in it: the scheduler's default. Each attends to a context of the greatest length."""

SAMPLING = SamplingParams(max_tokens=1, seed=0, top_p=0.9, typical_p=0.9, repetition_penalty=1.1, logprobs=20)


def profile_plans(max_seqs: int, max_model_len: int) -> Iterator[Plan]:
    """The largest prefill step, then the largest step that decodes and samples, of every control.

    All blocks are block 0, which such a cache needs no other of: what the copies of a step's blocks take is
    counted with the blocks. Contexts of the decoding rows are short for the same reason.
    """
    count = min(CHUNK, max_model_len)
    slots = range(min(max_seqs, -(-STEP_TOKENS // count)))
    start = max_model_len - count
    yield _prefill(1, (), slots, length=max_model_len, start=start)
    yield _prefill(2, tuple(slots), range(max_seqs), length=1, start=0)
    yield Plan(1, 3, num_decodes=max_seqs)


def _prefill(step: int, released: tuple[int, ...], slots: range, *, length: int, start: int) -> Plan:
    """Requests of ``length`` tokens, of which the last are computed."""
    tokens, blocks = (0,) * length, (0,) * blocks_for(length)
    return Plan(
        1,
        step,
        released=released,
        admissions=tuple(Admission(slot, slot + 1, "", tokens, 0, start, SAMPLING) for slot in slots),
        grants=tuple(Grant(slot, blocks) for slot in slots),
        chunks=tuple(Chunk(slot, start, length - start) for slot in slots),
    )
