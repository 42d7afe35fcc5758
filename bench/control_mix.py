"""64 streams with 64 different control sets, batched, against the same requests one by one.

    python -m bench.control_mix

Runs the bundled model in fp32 through the whole stack at TP 1, 2 and 4, synchronous and overlapped. The exit
status is 1 where a stream differs from its solo run. Takes minutes, so it is not a part of the tests.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import typer
from rich.console import Console

from albireo.client import Client
from albireo.models import TINY
from bench.stack import running_stack

STREAMS = 64


def control_sets(count: int) -> list[dict[str, Any]]:
    """Random subsets of all controls; every request has a seed of its own."""
    draw = random.Random(4)
    choices: dict[str, Any] = {
        "temperature": lambda: draw.choice([0.0, 0.7, 1.0, 1.3]),
        "top_k": lambda: draw.randint(1, 60),
        "top_p": lambda: draw.uniform(0.5, 1.0),
        "min_p": lambda: draw.uniform(0.0, 0.1),
        "typical_p": lambda: draw.uniform(0.5, 1.0),
        "repetition_penalty": lambda: draw.uniform(1.0, 1.3),
        "presence_penalty": lambda: draw.uniform(-0.5, 1.0),
        "frequency_penalty": lambda: draw.uniform(-0.5, 1.0),
        "logit_bias": lambda: {draw.randrange(2, 384): draw.uniform(-5, 5) for _ in range(4)},
        "bad_token_ids": lambda: [draw.randrange(2, 384) for _ in range(4)],
        "min_tokens": lambda: draw.randint(1, 12),
        "logprobs": lambda: draw.randint(0, 5),
    }
    found = []
    for number in range(count):
        names = draw.sample(sorted(choices), draw.randint(2, len(choices)))
        found.append({name: choices[name]() for name in names} | {"seed": number, "max_tokens": 24})
    return found


def ids_of(client: Client, number: int, controls: dict[str, Any]) -> list[int]:
    events = client.generate(f"Tell me a story about a fox and {number} bears.", timeout=120, **controls)
    return [token for event in events for token in event.tokens.ids]


def differing(tp: int, *, synchronous: bool) -> int:
    """How many of the batched streams differ from their solo runs."""
    sets = control_sets(STREAMS)
    options = {"model": TINY, "dtype": "float32", "tp": tp, "synchronous": synchronous}
    with (
        running_stack(options) as stack,
        Client(stack.target) as client,
        ThreadPoolExecutor(STREAMS) as pool,
    ):
        batched = list(pool.map(ids_of, [client] * STREAMS, range(STREAMS), sets))
        solo = [ids_of(client, number, controls) for number, controls in enumerate(sets)]
    return sum(one != other for one, other in zip(batched, solo, strict=True))


def main(tp: Annotated[list[int] | None, typer.Option(help="TP degrees; default 1, 2, 4.")] = None) -> None:
    """Prints how many streams of each run differ from their solo runs."""
    wrong = 0
    for degree in tp or [1, 2, 4]:
        for synchronous in (True, False):
            found = differing(degree, synchronous=synchronous)
            mode = "synchronous" if synchronous else "overlapped"
            Console().print(
                f"tp {degree}, {mode}: {STREAMS - found} of {STREAMS} streams equal their solo run"
            )
            wrong += found
    raise typer.Exit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
