"""Many control sets in one batch, through the real scheduler core and model, at every TP degree.

Each request must bring what it brings alone on one rank; log-probabilities of prompts are transformers'.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from albireo.contract.plan import Finish, SamplingParams
from tests.worker_svc.checkpoints import FAMILIES, VOCAB, Reference, write
from tests.worker_svc.oracle import Ask, Outcome, Scenario, make_runner, run
from tests.worker_svc.ranks import Job, run_group
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.sampling import prompt_logprobs

PLENTY = Scenario(num_blocks=128, max_model_len=112, chunk=13, ahead=2)
SCARCE = replace(PLENTY, num_blocks=18)


def sampling(draw: Random, seed: int) -> SamplingParams:
    """One of endlessly many control sets; no end tokens, so that all run to their length."""

    def some(value: float, off: float) -> float:
        return value if draw.random() < 0.5 else off

    return SamplingParams(
        max_tokens=draw.randint(12, 30),
        seed=seed,
        min_tokens=4,
        temperature=some(draw.uniform(0.5, 1.5), 0.0) if seed % 3 == 0 else draw.uniform(0.5, 1.5),
        top_k=int(some(draw.randint(2, 60), 0)),
        top_p=some(draw.uniform(0.5, 0.99), 1.0),
        min_p=some(draw.uniform(0.001, 0.1), 0.0),
        stop_ids=(draw.randrange(VOCAB),),
        logprobs=draw.choice([-1, 0, 4]),
        prompt_logprobs=draw.choice([-1, 0, 3]),
        typical_p=some(draw.uniform(0.5, 0.99), 1.0),
        repetition_penalty=some(draw.uniform(0.8, 1.4), 1.0),
        presence_penalty=some(draw.uniform(-1, 1), 0.0),
        frequency_penalty=some(draw.uniform(-0.5, 0.5), 0.0),
        logit_bias=tuple((draw.randrange(VOCAB // 8) * 8 + i, draw.uniform(-4, 4)) for i in range(3)),
        allowed_ids=tuple(range(draw.randrange(9), VOCAB, 2)) if draw.random() < 0.2 else (),
        bad_ids=tuple(draw.sample(range(VOCAB), 5)),
    )


def asks() -> list[Ask]:
    draw = Random(4)
    return [
        Ask(
            f"r{seed}",
            tuple(draw.randrange(VOCAB) for _ in range(draw.randint(1, 50))),
            sampling(draw, seed),
            after_step=2 * seed,
        )
        for seed in range(24)
    ]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = Path(tmp_path_factory.mktemp("controls")) / "qwen3"
    write(FAMILIES["qwen3-tied"], found)
    return found


@pytest.fixture(scope="module")
def alone(directory: Path) -> Outcome:
    group, way = TPGroup(), replace(PLENTY, together=False)
    return run(make_runner(directory, group, way), group, way, asks())


def check(found: Outcome, alone: Outcome) -> None:
    for name, answer in alone.answers.items():
        assert found.answers[name].ids == answer.ids, name
        assert found.answers[name].finish is answer.finish is not Finish.ERROR
        prompts = [outcome.answers[name].prompt_logprobs for outcome in (found, alone)]
        assert prompts[0].keys() == prompts[1].keys()
        for index, logprobs in prompts[0].items():
            assert logprobs.logprob == pytest.approx(prompts[1][index].logprob, abs=1e-4)


@pytest.mark.parametrize("way", [PLENTY, SCARCE], ids=["plenty", "scarce"])
def test_a_batch_on_one_rank(directory: Path, alone: Outcome, way: Scenario) -> None:
    group = TPGroup()
    found = run(make_runner(directory, group, way), group, way, asks())
    assert (found.preemptions > 0) is (way is SCARCE)
    assert max(plan.num_decodes for plan in found.plans) > 4
    check(found, alone)


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def shared(
    request: pytest.FixtureRequest, directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcome]:
    jobs = {
        "auto": Job(directory, PLENTY, asks(), "auto"),
        "parallel": Job(directory, SCARCE, asks(), "parallel"),
        "driver": Job(directory, PLENTY, asks(), "driver"),
    }
    return run_group(request.param, jobs, Path(tmp_path_factory.mktemp("ranks")))


@pytest.mark.parametrize("mode", ["auto", "parallel", "driver"])
def test_a_batch_on_many_ranks(alone: Outcome, shared: dict[str, Outcome], mode: str) -> None:
    check(shared[mode], alone)


def test_prompt_logprobs_are_those_of_transformers(
    directory: Path, alone: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_logprobs, "SLICE", 5 * VOCAB)  # a few slices for each chunk
    group = TPGroup()
    sliced = run(make_runner(directory, group, PLENTY), group, PLENTY, asks())
    check(sliced, alone)
    reference = Reference(directory)
    wanting = [ask for ask in asks() if ask.sampling.prompt_logprobs >= 0]
    assert len(wanting) > 8
    for ask in wanting:
        answer = sliced.answers[ask.name].prompt_logprobs
        truth = reference.logits(ask.prompt).log_softmax(-1)
        assert sorted(answer) == list(range(1, len(ask.prompt)))
        for index, logprobs in answer.items():
            row = truth[index - 1]
            assert logprobs.logprob == pytest.approx(float(row[ask.prompt[index]]), abs=1e-4)
            top, ids = row.topk(ask.sampling.prompt_logprobs)
            assert list(logprobs.top_logprobs) == pytest.approx(top.tolist(), abs=1e-4)
            assert list(logprobs.top_ids) == ids.tolist()
    for ask in asks():
        if ask.sampling.prompt_logprobs < 0:
            assert not sliced.answers[ask.name].prompt_logprobs
