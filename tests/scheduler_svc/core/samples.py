"""Prompts and seeds for tests of the core."""

from __future__ import annotations

from albireo.contract.plan import Finish, SamplingParams

from .worker_model import solo


def prompt(length: int, salt: int = 0) -> tuple[int, ...]:
    """A prompt without an end token; prompts of different salt share nothing."""
    return tuple((salt * 5 + i * i) % 23 + 1 for i in range(length))


def seed_that_stops(tokens: tuple[int, ...], after: int) -> int:
    """A seed with which the ``after``-th output of a prompt is an end token, and none before."""
    for seed in range(10_000):
        outputs, finish = solo(tokens, SamplingParams(max_tokens=after, seed=seed), 10_000)
        if len(outputs) == after and finish is Finish.STOP:
            return seed
    raise AssertionError("no such seed")
