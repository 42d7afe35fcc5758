"""Draws workloads from distributions of lengths and arrivals; commands and benchmarks call it."""

from __future__ import annotations

import math
import random

from albireo.planning.workload import Sampling, Workload, WorkloadRequest
from albireo.planning.workloads.arrivals import CONCURRENCY, with_arrivals
from albireo.planning.workloads.lengths import Lengths, parse_lengths


def make_workload(
    prompt_length: str = "fixed:64",
    output_length: str = "fixed:64",
    *,
    concurrency: int = CONCURRENCY,
    rate: float = 0.0,
    burstiness: float = 1.0,
    num_requests: int = 64,
    seed: int = 0,
    sampling: Sampling = "greedy",
    max_model_len: int | None = None,
) -> Workload:
    """The same workload for the same arguments.

    ``prompt_length``, ``output_length``: see ``parse_lengths``. ``rate``: requests a second of an open loop;
    0 is a closed loop of ``concurrency`` requests. ``burstiness``: see ``gaps``. ``max_model_len``: drawn
    lengths are cut to this context; where even the shortest ones do not fit, ValueError. Raises ValueError
    for any other bad value too, with the name of the argument.
    """
    prompts = _named("prompt_length", prompt_length)
    outputs = _named("output_length", output_length)
    if num_requests < 1:
        raise ValueError(f"num_requests: {num_requests}: must be at least 1")
    requests = _draw(prompts, outputs, num_requests, seed, max_model_len)
    workload = Workload(
        f"{num_requests} requests, prompts {prompt_length}, outputs {output_length}",
        requests,
        sampling=sampling,
        seed=seed,
    )
    return with_arrivals(workload, concurrency=concurrency, rate=rate, burstiness=burstiness)


def _named(argument: str, text: str) -> Lengths:
    """Raises ValueError with the name of the argument."""
    try:
        return parse_lengths(text)
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from None


def _draw(
    prompts: Lengths, outputs: Lengths, count: int, seed: int, max_model_len: int | None
) -> tuple[WorkloadRequest, ...]:
    """Requests without arrival times."""
    context = math.inf if max_model_len is None else max_model_len
    if prompts.shortest + outputs.shortest > context:
        raise ValueError(
            f"prompts of {prompts.shortest} and outputs of {outputs.shortest} tokens do not fit into the "
            f"context of {context} tokens"
        )
    draw = random.Random(f"{seed} lengths")
    requests = []
    for _ in range(count):
        prompt = int(min(prompts.draw(draw), context - outputs.shortest))
        requests.append(WorkloadRequest(0.0, prompt, int(min(outputs.draw(draw), context - prompt))))
    return tuple(requests)
