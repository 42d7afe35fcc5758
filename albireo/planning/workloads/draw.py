"""Draws workloads from distributions of lengths and arrivals; commands and benchmarks call it."""

from __future__ import annotations

import math
import random

from albireo.planning.workload import MAX_REQUESTS, Sampling, Workload, WorkloadRequest
from albireo.planning.workloads.arrivals import with_arrivals
from albireo.planning.workloads.lengths import Lengths, parse_lengths


def make_workload(
    prompt_length: str = "fixed:64",
    output_length: str = "fixed:64",
    *,
    concurrency: int | None = None,
    rate: float | None = None,
    burstiness: float | None = None,
    num_requests: int = 64,
    seed: int = 0,
    sampling: Sampling = "greedy",
    max_model_len: int | None = None,
) -> Workload:
    """The same workload for the same arguments.

    ``prompt_length``, ``output_length``: see ``parse_lengths``. ``concurrency``, ``rate``, ``burstiness``:
    see ``with_arrivals``. ``max_model_len``: drawn lengths are cut to this context, and the name says of how
    many requests; where even the shortest ones do not fit, ValueError. Raises ValueError for any other bad
    value too, with the name of the argument.
    """
    prompts = _named("prompt_length", prompt_length)
    outputs = _named("output_length", output_length)
    if not 1 <= num_requests <= MAX_REQUESTS:
        raise ValueError(f"num_requests: {num_requests}: must be from 1 to {MAX_REQUESTS}")
    requests, cut = _draw(prompts, outputs, num_requests, seed, max_model_len)
    name = f"{num_requests} requests, prompts {prompt_length}, outputs {output_length}"
    if cut:
        name += f", {cut} cut to the context of {max_model_len} tokens"
    workload = Workload(name, requests, sampling=sampling, seed=seed)
    return with_arrivals(workload, concurrency=concurrency, rate=rate, burstiness=burstiness)


def _named(argument: str, text: str) -> Lengths:
    """Raises ValueError with the name of the argument."""
    try:
        return parse_lengths(text)
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from None


def _draw(
    prompts: Lengths, outputs: Lengths, count: int, seed: int, max_model_len: int | None
) -> tuple[tuple[WorkloadRequest, ...], int]:
    """Requests without arrival times, and how many of them were longer than the context."""
    context = math.inf if max_model_len is None else max_model_len
    if prompts.shortest + outputs.shortest > context:
        raise ValueError(
            f"prompts of {prompts.shortest} and outputs of {outputs.shortest} tokens do not fit into the "
            f"context of {context} tokens"
        )
    draw = random.Random(f"{seed} lengths")
    requests, cut = [], 0
    for _ in range(count):
        drawn, output = prompts.draw(draw), outputs.draw(draw)
        cut += drawn + output > context
        prompt = int(min(drawn, context - outputs.shortest))
        requests.append(WorkloadRequest(0.0, prompt, int(min(output, context - prompt))))
    return tuple(requests), cut
