"""Measures how fast steps are, with steps of dummy requests. A model's runner calls it when the rank starts.

All ranks run the same steps, together, as for real plans.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from albireo.contract.plan import BLOCK_SIZE, Admission, Chunk, Grant, Plan, SamplingParams, blocks_for
from worker_svc.cost.speed import PROMPT, StepSpeed
from worker_svc.runner.interface import Runner

FEW, MOST = 5, 40
"""Steps of one kind that are measured. Other processes start at the same time, so the quickest says most."""
MORE_SECONDS = 0.25
"""For steps of one kind beyond FEW."""
SHORTEST_PROMPT = 16
PREFILL_SECONDS = 2.0
"""A step that prefills is kept below this many seconds, if the shortest prompt is."""
NANOSECOND = 1e-9


def measure_speed(runner: Runner[Any], agree: Callable[[float], float]) -> StepSpeed:
    """Resets the runner. ``agree``: the largest of all ranks' numbers.

    Nothing is measured, and the speed is 0, where a request cannot be as long.
    """
    longest = min(runner.shape.max_model_len, runner.shape.num_blocks * BLOCK_SIZE)
    if longest < SHORTEST_PROMPT:
        return StepSpeed()
    number = count(1)
    most = min(MOST, longest - 1)
    _run(runner, _prefill(next(number), 1, released=False, blocks=blocks_for(1 + most)))
    decode, slowest = _quickest(lambda: _run(runner, Plan(1, next(number), num_decodes=1)), agree, FEW, most)
    # A token of a prompt costs no more than a step: that bounds the prefill on a slow device.
    length = min(longest, max(SHORTEST_PROMPT, min(PROMPT, int(PREFILL_SECONDS / slowest))))
    prompt = blocks_for(length)
    prefill, _ = _quickest(
        lambda: _run(runner, _prefill(next(number), length, released=True, blocks=prompt)), agree, 2, FEW
    )
    runner.reset()
    return StepSpeed.of_steps(decode, prefill, length)


def _quickest(
    run: Callable[[], float], agree: Callable[[float], float], few: int, most: int
) -> tuple[float, float]:
    """Seconds of the quickest of a few steps, on this rank and as all have agreed. As many more as are
    worth their time, which is the same number on every rank, count as well."""
    quickest = min(run() for _ in range(few))
    agreed = agree(quickest)
    more = max(0, min(most - few, int(MORE_SECONDS / agreed)))
    return min([quickest, *(run() for _ in range(more))]), agreed


def _prefill(step: int, length: int, *, released: bool, blocks: int) -> Plan:
    sampling = SamplingParams(max_tokens=MOST + 1, seed=0)
    return Plan(
        1,
        step,
        released=(0,) if released else (),
        admissions=(Admission(0, step, "", (0,) * length, 0, 0, sampling),),
        grants=(Grant(0, tuple(range(blocks))),),
        chunks=(Chunk(0, 0, length),),
    )


def _run(runner: Runner[Any], plan: Plan) -> float:
    """Seconds of forward and sampling."""
    output = runner.execute(runner.prepare(plan))
    output.to_host()
    begin, _, end = output.timestamps()
    return max(NANOSECOND, (end - begin) * NANOSECOND)
