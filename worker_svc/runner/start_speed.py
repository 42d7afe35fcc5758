"""Measures how fast steps are, with steps of dummy requests. A model's runner calls it when the rank starts.

All ranks run the same steps, together, as for real plans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from albireo.contract.plan import BLOCK_SIZE, Admission, Chunk, Grant, Plan, SamplingParams, blocks_for
from worker_svc.cost.speed import PROMPT, StepSpeed
from worker_svc.runner.interface import Runner

DECODES = 5
"""Steps that decode one row."""
SHORTEST_PROMPT = 16
PREFILL_SECONDS = 2.0
"""A step that prefills is kept below this many seconds, if the shortest prompt is."""
NANOSECOND = 1e-9


def measure_speed(runner: Runner[Any], agree: Callable[[float], float]) -> StepSpeed:
    """Resets the runner. ``agree``: the largest of all ranks' numbers.

    Nothing is measured, and the speed is 0, where a request cannot be as long.
    """
    shape = runner.shape
    if shape.max_model_len < SHORTEST_PROMPT:
        return StepSpeed()
    _, *decodes = [_run(runner, plan) for plan in _decode_plans()]
    decode = min(decodes)  # other processes start at the same time: the quickest says most
    # A token of a prompt costs no more than a step: that bounds the prefill on a slow device.
    length = max(SHORTEST_PROMPT, min(PROMPT, int(PREFILL_SECONDS / agree(decode))))
    length = min(length, shape.max_model_len, shape.num_blocks * BLOCK_SIZE)
    prefill = min(_run(runner, _prefill(step, length, released=True)) for step in (101, 102))
    runner.reset()
    return StepSpeed.of_steps(decode, prefill, length)


def _decode_plans() -> Iterator[Plan]:
    """A request of one token, which decodes then; it stays within its first block."""
    yield _prefill(1, 1, released=False)
    for step in range(2, 2 + DECODES):
        yield Plan(1, step, num_decodes=1)


def _prefill(step: int, length: int, *, released: bool) -> Plan:
    sampling = SamplingParams(max_tokens=DECODES + 1, seed=0)
    return Plan(
        1,
        step,
        released=(0,) if released else (),
        admissions=(Admission(0, step, "", (0,) * length, 0, 0, sampling),),
        grants=(Grant(0, tuple(range(blocks_for(length)))),),
        chunks=(Chunk(0, 0, length),),
    )


def _run(runner: Runner[Any], plan: Plan) -> float:
    """Seconds of forward and sampling."""
    output = runner.execute(runner.prepare(plan))
    output.to_host()
    begin, _, end = output.timestamps()
    return max(NANOSECOND, (end - begin) * NANOSECOND)
