"""What a CUDA graph of a step could save at most: how long launching takes, and the device waits for it.

Where launching is slow, the device waits in the middle of a step, but not of one that it begins when all is
launched. Among steps that overlap it waits less than in those that run alone: while one runs, the next is
launched.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from albireo.contract.plan import Plan
from bench.throughput.static_batch import TimedStep
from worker_svc.runner.model_runner import ModelRunner

CYCLES_PER_SECOND = 2e9
"""Of a device, at most."""
SLEEPS = 3
"""Times as long as launching takes."""


def launched_ahead(runner: ModelRunner, plan: Plan, launch: float) -> float | None:
    """Seconds of a CUDA device for a step that it begins when all is launched, since it sleeps before.

    ``launch``: seconds that launching takes. None where the step began before: a device's queue has an end.
    """
    batch = runner.prepare(plan)
    torch.cuda._sleep(round(SLEEPS * launch * CYCLES_PER_SECOND))
    output = runner.execute(batch)
    launched = time.time_ns()
    output.to_host()
    begun, _, end = output.timestamps()
    return (end - begun) / 1e9 if launched < begun else None


def launching(steps: Sequence[TimedStep], ahead: Iterable[float | None]) -> dict[str, float]:
    """Medians in milliseconds of steps that ran alone, and of such as :func:`launched_ahead` has timed."""
    found = {
        "launch_ms": float(np.median([step.launch for step in steps])) * 1e3,
        "device_ms": float(np.median([step.forward + step.sampling for step in steps])) * 1e3,
    }
    if known := [seconds for seconds in ahead if seconds is not None]:
        found["device_ahead_ms"] = float(np.median(known)) * 1e3
        found["saving_ms"] = max(0.0, found["device_ms"] - found["device_ahead_ms"])
    return found
