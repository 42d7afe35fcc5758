"""The token ids of a workload's prompts, for the load generator; simulations make theirs more quickly."""

from __future__ import annotations

import random
from collections.abc import Iterator

from albireo.planning.workload import Workload


def prompt_ids(workload: Workload, vocab_size: int, *, salt: str = "") -> Iterator[list[int]]:
    """Random ids of each request's prompt, in order; the same for the same seed and ``salt``. Of a later turn
    those that are not of the turns before.

    Requests with the same ``prefix`` begin with the same ids, as far as their ``prefix_tokens`` go.
    """
    name = f"{workload.seed} {salt}"
    draw, vocabulary = random.Random(f"{name} prompts"), range(vocab_size)
    prefixes: dict[str, tuple[random.Random, list[int]]] = {}
    for index, request in enumerate(workload.requests):
        shared: list[int] = []
        if request.prefix:
            source, shared = prefixes.setdefault(
                request.prefix, (random.Random(f"{name} prefix {request.prefix}"), [])
            )
            if len(shared) < request.prefix_tokens:
                shared += source.choices(vocabulary, k=request.prefix_tokens - len(shared))
        own = draw.choices(vocabulary, k=workload.own_tokens(index) - request.prefix_tokens)
        yield shared[: request.prefix_tokens] + own
