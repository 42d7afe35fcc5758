"""Records of steps as a rank and a scheduler would write them, in milliseconds of one clock."""

from __future__ import annotations

from collections.abc import Sequence

from albireo.v1 import control_pb2 as control

EPOCH = 3
BASE_NS = 1_700_000_000_000_000_000


def nanoseconds(milliseconds: float) -> int:
    return BASE_NS + round(milliseconds * 1e6)


def record(
    step: int,
    *,
    plan: tuple[float, float],
    published_before: float,
    fetched: float,
    staged: float,
    forward: tuple[float, float, float],
    output_begin: float,
    appended_before: float,
    settled: int,
    decodes: int = 8,
    prefill_tokens: int = 0,
) -> control.StepRecord:
    """``forward``: begin, end, and end of sampling."""
    begin, end, sampled = forward
    return control.StepRecord(
        epoch=EPOCH,
        step=step,
        decodes=decodes,
        prefill_tokens=prefill_tokens,
        tokens=decodes,
        received=nanoseconds(output_begin + 1),
        handed_out=nanoseconds(output_begin + 1.1),
        timing=control.StepTiming(
            plan_begin=nanoseconds(plan[0]),
            plan_end=nanoseconds(plan[1]),
            previous_published=nanoseconds(published_before),
            settled_step=max(0, settled),
            look_ahead=1,
            fetched=nanoseconds(fetched),
            staged=nanoseconds(staged),
            forward_begin=nanoseconds(begin),
            sampling_begin=nanoseconds(end),
            sampling_end=nanoseconds(sampled),
            output_begin=nanoseconds(output_begin),
            previous_appended=nanoseconds(appended_before),
        ),
    )


def overlapped(steps: Sequence[int]) -> list[control.StepRecord]:
    """Period 10 ms, forward 8, sampling 1.9, 0.1 between steps; each plan is ready 5 ms ahead."""
    return [
        record(
            n,
            plan=(10 * n - 6, 10 * n - 5.5),
            published_before=10 * (n - 1) - 5.2,
            fetched=10 * n - 5,
            staged=10 * n - 4,
            forward=(10 * n, 10 * n + 8, 10 * n + 9.9),
            output_begin=10 * n + 10,
            appended_before=10 * n + 0.6,
            settled=n - 2,
        )
        for n in steps
    ]


def synchronous(steps: Sequence[int]) -> list[control.StepRecord]:
    """After 9.9 ms of compute: 0.5 ms output, 1 ms until the plan is there, 0.6 ms until it is staged."""
    return [
        record(
            n,
            plan=(12 * n - 1.4, 12 * n - 0.9),
            published_before=12 * (n - 1) - 0.65,
            fetched=12 * n - 0.6,
            staged=12 * n - 0.1,
            forward=(12 * n, 12 * n + 8, 12 * n + 9.9),
            output_begin=12 * n + 9.95,
            appended_before=12 * (n - 1) + 10.4,
            settled=n - 1,
        )
        for n in steps
    ]
