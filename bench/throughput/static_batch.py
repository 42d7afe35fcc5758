"""The model without a scheduler: plans of a batch that is admitted at once and runs to its end."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from albireo.contract.plan import BLOCK_SIZE, Admission, Chunk, Grant, Plan, SamplingParams, blocks_for
from worker_svc.runner.model_runner import ModelRunner


def plans(batch: int, prompt: int, outputs: int, vocab_size: int, *, chunk: int = 1024) -> Iterator[Plan]:
    """``batch`` greedy requests of ``prompt`` random ids: prefill in chunks, then ``outputs - 1`` decodes."""
    draw = random.Random(0)
    per_request = blocks_for(prompt + outputs)
    step = 0
    at_once = max(1, chunk // prompt)
    for first in range(0, batch, at_once):
        slots = range(first, min(batch, first + at_once))
        step += 1
        yield Plan(
            epoch=1,
            step=step,
            # Rows that are prefilled already wait until all are, so that all decode together.
            paused=tuple(range(first - at_once, first)) if first else (),
            admissions=tuple(_admission(slot, prompt, outputs, vocab_size, draw) for slot in slots),
            grants=tuple(
                Grant(s, tuple(range(s * per_request, s * per_request + blocks_for(prompt)))) for s in slots
            ),
            chunks=tuple(Chunk(slot, 0, prompt) for slot in slots),
        )
    for index in range(outputs - 1):
        step += 1
        length = prompt + index + 1
        grants: tuple[Grant, ...] = ()
        if length > blocks_for(prompt) * BLOCK_SIZE and length % BLOCK_SIZE == 1:
            grants = tuple(Grant(s, (s * per_request + blocks_for(length) - 1,)) for s in range(batch))
        yield Plan(
            epoch=1,
            step=step,
            resumed=tuple(range(batch)) if index == 0 else (),
            grants=grants,
            num_decodes=batch,
        )


def mixed_plans(rows: int, prompt: int, tokens: int, steps: int, vocab_size: int) -> list[Plan]:
    """``rows`` requests of ``prompt`` ids as of :func:`plans`. In each of the ``steps`` in which they decode,
    another one of ``tokens`` ids is prefilled, and leaves."""
    first = rows * blocks_for(prompt + steps + 1)
    admission = _admission(rows, tokens, 1, vocab_size, random.Random(1))
    grant = Grant(rows, tuple(range(first, first + blocks_for(tokens))))

    def mixed(plan: Plan) -> Plan:
        chunks, grants = (Chunk(rows, 0, tokens),), (*plan.grants, grant)
        return replace(plan, released=(rows,), admissions=(admission,), grants=grants, chunks=chunks)

    todo = plans(rows, prompt, steps + 1, vocab_size)
    return [mixed(plan) if plan.num_decodes else plan for plan in todo]


def _admission(slot: int, prompt: int, outputs: int, vocab_size: int, draw: random.Random) -> Admission:
    """Of ids at random, greedy."""
    sampling = SamplingParams(max_tokens=outputs, seed=0, temperature=0.0, ignore_eos=True)
    tokens = tuple(draw.randrange(vocab_size) for _ in range(prompt))
    return Admission(slot, slot + 1, f"r{slot}", tokens, 0, 0, sampling)


@dataclass(frozen=True, slots=True)
class TimedStep:
    """Seconds of a step that runs alone."""

    whole: float  # from the plan to the ids on the host
    forward: float  # T3, on the device
    sampling: float  # T4, likewise
    launch: float  # of the host, to launch both: a device may run behind it


def timed_step(runner: ModelRunner, plan: Plan) -> TimedStep:
    """Executes a plan, and waits for what it samples."""
    start = time.perf_counter()
    batch = runner.prepare(plan)
    begun = time.perf_counter()
    output = runner.execute(batch)
    launched = time.perf_counter()
    output.to_host()
    whole = time.perf_counter() - start
    forward, sampling, end = output.timestamps()
    return TimedStep(whole, (sampling - forward) / 1e9, (end - sampling) / 1e9, launched - begun)


def run(runner: ModelRunner, batch: int, prompt: int, outputs: int) -> tuple[float, list[float]]:
    """Seconds from the first plan to the last id, and seconds of each decode step."""
    runner.reset()
    began = time.perf_counter()
    steps = []
    for plan in plans(batch, prompt, outputs, runner.config.vocab_size):
        step = timed_step(runner, plan)
        if not plan.chunks:
            steps.append(step.whole)
    return time.perf_counter() - began, steps
