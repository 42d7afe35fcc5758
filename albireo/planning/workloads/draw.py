"""Draws workloads from distributions of lengths and arrivals; commands and benchmarks call it."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from albireo.planning.workload import MAX_REQUESTS, Sampling, Workload, WorkloadRequest
from albireo.planning.workloads.arrivals import with_arrivals
from albireo.planning.workloads.lengths import Lengths, parse_lengths

THINK_SECONDS = 30.0
"""Of a conversation, where nothing else is asked for."""


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
    turns: int = 1,
    think_time: float | None = None,
) -> Workload:
    """The same workload for the same arguments.

    ``prompt_length``, ``output_length``: see ``parse_lengths``. ``concurrency``, ``rate``, ``burstiness``:
    see ``with_arrivals``. ``max_model_len``: drawn lengths are cut to this context, and the name says of how
    many requests; where even the shortest ones do not fit, ValueError. ``turns``: requests of a conversation,
    to each of which ``prompt_length`` adds; it is over earlier where the context is full. ``think_time``:
    mean seconds from an answer to the next turn, 30 by default, exponentially distributed. Raises ValueError
    for any other bad value too, with the name of the argument.
    """
    prompts = _named("prompt_length", prompt_length)
    outputs = _named("output_length", output_length)
    if not 1 <= num_requests <= MAX_REQUESTS:
        raise ValueError(f"num_requests: {num_requests}: must be from 1 to {MAX_REQUESTS}")
    if turns < 1:
        raise ValueError(f"turns: {turns}: must be at least 1")
    if think_time is not None and turns == 1:
        raise ValueError("think_time: is of conversations, which have more than one of turns")
    think_time = THINK_SECONDS if think_time is None else think_time
    if not 0 <= think_time < math.inf:
        raise ValueError(f"think_time: {think_time:g}: must be 0 or seconds")
    requests, cut = _draw(prompts, outputs, num_requests, seed, max_model_len, turns)
    name = f"{num_requests} requests, prompts {prompt_length}, outputs {output_length}"
    if turns > 1:
        requests = _with_think_times(requests, think_time, random.Random(f"{seed} think times"))
        name += f", conversations of {turns} turns, {think_time:g} s apart"
    if cut:
        name += f", {cut} cut to the context of {max_model_len} tokens"
    workload = Workload(name, tuple(requests), sampling=sampling, seed=seed)
    return with_arrivals(workload, concurrency=concurrency, rate=rate, burstiness=burstiness)


def _named(argument: str, text: str) -> Lengths:
    """Raises ValueError with the name of the argument."""
    try:
        return parse_lengths(text)
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from None


def _draw(
    prompts: Lengths, outputs: Lengths, count: int, seed: int, max_model_len: int | None, turns: int
) -> tuple[list[WorkloadRequest], int]:
    """Requests without times, and how many of them were longer than the context."""
    context = math.inf if max_model_len is None else max_model_len
    if prompts.shortest + outputs.shortest > context:
        raise ValueError(
            f"prompts of {prompts.shortest} and outputs of {outputs.shortest} tokens do not fit into the "
            f"context of {context} tokens"
        )
    draw = random.Random(f"{seed} lengths")
    requests: list[WorkloadRequest] = []
    cut = turn = so_far = 0
    for index in range(count):
        turn = turn % turns + 1
        if turn == 1 or so_far + prompts.shortest + outputs.shortest > context:
            turn, so_far = 1, 0
        drawn, output = so_far + prompts.draw(draw), outputs.draw(draw)
        cut += drawn + output > context
        prompt = int(min(drawn, context - outputs.shortest))
        output = int(min(output, context - prompt))
        requests.append(WorkloadRequest(0.0, prompt, output, after=index - 1 if turn > 1 else None))
        so_far = prompt + output
    return requests, cut


def _with_think_times(
    requests: list[WorkloadRequest], mean: float, draw: random.Random
) -> list[WorkloadRequest]:
    return [
        request if request.after is None else replace(request, think=mean * draw.expovariate(1.0))
        for request in requests
    ]
