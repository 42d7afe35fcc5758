"""Contexts of four times the device's memory bring the tokens that they bring where memory is enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from albireo.contract.plan import blocks_for
from albireo.contract.tiers import Frames
from tests.worker_svc.checkpoints import FAMILIES, write
from tests.worker_svc.ranks import run_group
from tests.worker_svc.runner.streamed import (
    Damage,
    Damaged,
    PlainTokens,
    Tokens,
    prompt_logprobs,
    runner_of,
)
from tests.worker_svc.runner.streamed_plans import (
    AGAIN,
    BLOCKS,
    LAYERS,
    LONGEST,
    OTHER,
    OUTPUTS,
    PROMPT,
    SAMPLING,
    SEEDED,
    STREAMED,
    Writer,
    plain_plans,
)
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.model.formats import Formats

STEPS = 180
"""More than any of the plans has."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = Path(tmp_path_factory.mktemp("deep"))
    write(FAMILIES["qwen2"], path, num_hidden_layers=LAYERS, max_position_embeddings=LONGEST)
    return path


def jobs(directory: Path, tier: Path) -> dict[str, Callable[[TPGroup], Any]]:
    found: dict[str, Callable[[TPGroup], Any]] = {}
    for name, sampling in (("greedy", SAMPLING), ("seeded", SEEDED)):
        found[name] = PlainTokens(directory, sampling, STEPS)
        for seed, overlap in ((1, False), (2, True)):
            found[f"{name} {seed}"] = Tokens(directory, sampling, seed, tier, overlap)
    return found


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_the_tokens_are_those_of_a_runner_with_enough_memory(
    directory: Path, tmp_path: Path, size: int
) -> None:
    found = run_group(size, jobs(directory, tmp_path), tmp_path)
    for name in ("greedy", "seeded"):
        plain = found[name]
        assert len(set(plain[STREAMED])) > 2
        for seed in (1, 2):
            tokens = found[f"{name} {seed}"]
            assert tokens[STREAMED] == plain[STREAMED][: OUTPUTS + 1]
            assert tokens[AGAIN] == plain[STREAMED][: OUTPUTS + 1]
            assert tokens[OTHER] == plain[OTHER][: len(tokens[OTHER])]


def test_blocks_in_8_bits_bring_the_same_tokens_wherever_they_are(tmp_path: Path) -> None:
    """Four times the device's memory, against a runner with enough."""
    write(FAMILIES["qwen2"], tmp_path, num_hidden_layers=LAYERS, max_position_embeddings=LONGEST, head_dim=16)
    formats = Formats(kv="int8")
    plain = PlainTokens(tmp_path, SAMPLING, STEPS, formats)(TPGroup())
    tokens = Tokens(tmp_path, SAMPLING, 1, tmp_path, False, formats=formats)(TPGroup())
    assert len(set(plain[STREAMED])) > 2
    assert tokens[STREAMED] == tokens[AGAIN] == plain[STREAMED][: OUTPUTS + 1]
    assert tokens[OTHER] == plain[OTHER][: len(tokens[OTHER])]


def test_the_log_probabilities_of_the_prompt_are_those_of_a_plain_one(
    directory: Path, tmp_path: Path
) -> None:
    sampling = replace(SAMPLING, prompt_logprobs=0)
    with runner_of(directory, TPGroup(), blocks=2 * blocks_for(LONGEST)) as runner:
        plain = prompt_logprobs(runner, plain_plans(sampling, 1))
    with runner_of(directory, TPGroup(), blocks=BLOCKS, tier=tmp_path) as runner:
        streamed = prompt_logprobs(runner, Writer(sampling, Random(4)).write())
    assert set(plain) == set(range(1, PROMPT))
    assert streamed == pytest.approx(plain, abs=1e-3)


@pytest.mark.parametrize(("size", "rank"), [(1, 0), (2, 1)])
def test_a_flipped_bit_fails_the_slot_on_all_ranks_and_no_other(
    directory: Path, tmp_path: Path, size: int, rank: int
) -> None:
    """From the first step that reads the damaged layer on, the frame holds nothing, and each step that reads
    any layer of it says so. The rows of the other request are what they were."""
    plans = Writer(SAMPLING, Random(1)).write()
    layer, step = 1, len(plans) - OUTPUTS - 8
    damage = Damage(directory, tmp_path / "tier", rank, 3, layer, step)
    both: dict[str, Callable[[TPGroup], Any]] = {
        "damage": damage,
        "plain": PlainTokens(directory, SAMPLING, STEPS),
    }
    found = run_group(size, both, tmp_path)
    damaged: Damaged = found["damage"]
    assert damaged.others == found["plain"][OTHER][: len(damaged.others)]
    after = [plan for plan in plans if plan.step >= step and plan.spans]
    first = next(plan for plan in after if any(s.first_layer <= layer < s.last_layer for s in plan.spans))
    expected = {plan.step: (50 + plan.spans[0].slot,) for plan in after if plan.step >= first.step}
    assert damaged.unfetched == expected
    assert set(expected.values()) == {(50 + STREAMED,), (50 + AGAIN,)}
    if rank == 0:
        assert damaged.lost[0] == Frames(0, (3,))
