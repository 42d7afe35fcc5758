"""One request's data ends that request at most, on one rank and on two; the step's other requests go on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from albireo.contract.plan import Admission, Chunk, Finish, Grant, GroupShape, Plan, SamplingParams
from tests.robustness.served import prompt_of
from tests.worker_svc.checkpoints import FAMILIES, VOCAB, Reference, write
from tests.worker_svc.oracle import Scenario, make_runner
from tests.worker_svc.ranks import run_group
from worker_svc.batch.slot_table import SlotTable
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.runner.model_runner import ModelRunner
from worker_svc.sampling.failed import FAILED
from worker_svc.sampling.layout import SamplingMode
from worker_svc.stages.finish import FinishDetector

STEPS = 5
PROMPT = prompt_of(20)
NEIGHBOUR = prompt_of(24)
GREEDY = SamplingParams(max_tokens=50, seed=0, temperature=0.0, ignore_eos=True)
NAN, INF = float("nan"), float("inf")

BAD: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "prompt": ((*PROMPT[:17], VOCAB, *PROMPT[18:]), {}),
    "prompt of 2^32 - 1": ((*PROMPT[:-1], 2**32 - 1), {}),
    "the prompt's first": ((VOCAB + 1, *PROMPT[1:]), {"prompt_logprobs": 2}),
    "stop_ids": (PROMPT, {"stop_ids": (VOCAB,), "min_tokens": 3}),
    "allowed_ids": (PROMPT, {"allowed_ids": (3, VOCAB)}),
    "bad_ids": (PROMPT, {"bad_ids": (VOCAB,)}),
    "logit_bias": (PROMPT, {"logit_bias": ((VOCAB, 1.0),)}),
    "a bias that is NaN": (PROMPT, {"logit_bias": ((3, NAN),)}),
    "temperature": (PROMPT, {"temperature": NAN}),
    "negative temperature": (PROMPT, {"temperature": -1.0}),
    "top_p": (PROMPT, {"temperature": 1.0, "top_p": NAN}),
    "min_p": (PROMPT, {"temperature": 1.0, "min_p": INF}),
    "typical_p": (PROMPT, {"temperature": 1.0, "typical_p": -1.0}),
    "repetition_penalty": (PROMPT, {"repetition_penalty": 0.0}),
    "presence_penalty": (PROMPT, {"presence_penalty": NAN}),
    "logprobs": (PROMPT, {"logprobs": VOCAB + 1}),
    "prompt_logprobs": (PROMPT, {"prompt_logprobs": 10**6}),
    "top_k": (PROMPT, {"temperature": 1.0, "top_k": 2**32 - 1}),
    "seed": (PROMPT, {"seed": 2**64}),
    "nothing allowed": (PROMPT, {"allowed_ids": (3,), "bad_ids": (3,)}),
    "min_tokens with ends only": (PROMPT, {"allowed_ids": (3,), "stop_ids": (3,), "min_tokens": 2}),
}


def plans_of(prompt: tuple[int, ...], sampling: dict[str, Any]) -> list[Plan]:
    """A request in slot 1 between two that are sane; it is released when its first row is known."""
    requests = {0: (NEIGHBOUR, GREEDY), 1: (prompt, replace(GREEDY, **sampling)), 2: (NEIGHBOUR, GREEDY)}
    first = Plan(
        1,
        1,
        admissions=tuple(Admission(s, s + 1, f"r{s}", p, 0, 0, how) for s, (p, how) in requests.items()),
        grants=tuple(Grant(slot, (3 * slot, 3 * slot + 1, 3 * slot + 2)) for slot in requests),
        chunks=tuple(Chunk(slot, 0, len(p)) for slot, (p, _) in requests.items()),
    )
    wasted = Plan(1, 2, num_decodes=3)
    released = Plan(1, 3, released=(1,), num_decodes=2)
    return [first, wasted, released, *(Plan(1, step, num_decodes=2) for step in range(4, STEPS + 1))]


def ids_of(runner: ModelRunner, plans: list[Plan]) -> dict[int, list[int]]:
    """Sampled ids by slot."""
    runner.reset()
    found: dict[int, list[int]] = {}
    for plan in plans:
        output = runner.execute(runner.prepare(plan)).to_host()
        for slot, token in zip(output.slots.tolist(), output.ids.tolist(), strict=True):
            found.setdefault(slot, []).append(token)
    return found


@dataclass(frozen=True)
class AllBad:
    """Each bad request in turn, on a rank of a group; what every rank saw, on rank 0."""

    directory: Path
    sampling: SamplingMode
    every: int = 1  # of these, so that a mode which shares nearly all code costs little

    def __call__(self, group: TPGroup) -> dict[str, list[dict[int, list[int]]]]:
        runner = make_runner(self.directory, group, Scenario(), sampling=self.sampling)
        found = {
            name: gathered(ids_of(runner, plans_of(*bad)), group)
            for name, bad in list(BAD.items())[:: self.every]
        }
        poison(runner, NAN)
        for name, controls in list(CONTROLS.items())[:: self.every]:
            found[f"NaN, {name}"] = gathered(ids_of(runner, plans_of(SPOILED, controls)), group)
        return found


def gathered(found: dict[int, list[int]], group: TPGroup) -> list[dict[int, list[int]]]:
    if group.size == 1:
        return [found]
    ranks: list[Any] = [None] * group.size
    torch.distributed.all_gather_object(ranks, found)
    return ranks


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("rows") / "model"
    write(FAMILIES["llama32-tied"], directory)
    return directory


@pytest.fixture(scope="module")
def expected(model: Path) -> list[int]:
    return Reference(model).generate(NEIGHBOUR, replace(GREEDY, max_tokens=STEPS)).ids


@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_bad_request_fails_and_the_others_of_its_steps_go_on(
    model: Path, expected: list[int], tmp_path: Path, size: int
) -> None:
    # Rank 0 samples all rows, or each rank its own: the latter is what two ranks are for.
    jobs = {"driver": AllBad(model, "driver", every=7), "parallel": AllBad(model, "parallel")}
    everything = (
        {"driver": AllBad(model, "driver")(TPGroup())} if size == 1 else run_group(size, jobs, tmp_path)
    )
    for mode, found in everything.items():
        for name, ranks in found.items():
            assert len(ranks) == size
            for ids in ranks:
                assert ids[1] == [FAILED, FAILED], (mode, name)
                assert ids[0] == ids[2] == expected, (mode, name)


def test_good_tokens_of_a_bad_prompt_leave_their_own_blocks(model: Path, expected: list[int]) -> None:
    """Their blocks may be shared through the prefix cache: they must hold what those tokens give."""
    bad = (*NEIGHBOUR[:16], VOCAB, 3)
    runner = make_runner(model, TPGroup(), Scenario())
    runner.reset()
    first = Admission(0, 1, "bad", bad, 0, 0, GREEDY)
    again = Admission(1, 2, "good", NEIGHBOUR, 0, 16, GREEDY)
    plans = [
        Plan(1, 1, admissions=(first,), grants=(Grant(0, (0, 1)),), chunks=(Chunk(0, 0, 18),)),
        Plan(1, 2, released=(0,), admissions=(again,), grants=(Grant(1, (0, 2)),), chunks=(Chunk(1, 16, 8),)),
    ]
    outputs = [runner.execute(runner.prepare(plan)).to_host().ids.tolist() for plan in plans]
    assert outputs == [[FAILED], expected[:1]]


def poison(runner: ModelRunner, number: float) -> None:
    """A row of the embedding, which only one prompt uses, becomes NaN."""
    embedding = runner._model.embedding
    # The head is the same table, and that row of it is a column of all logits: it must stay good.
    embedding._weight = embedding._weight.clone()
    if 0 <= UNUSED - embedding._first < len(embedding._weight):
        embedding._weight[UNUSED - embedding._first] = number


UNUSED = next(token for token in range(VOCAB) if token not in {*NEIGHBOUR, *PROMPT})
SPOILED = (*PROMPT[:5], UNUSED, *PROMPT[6:])
CONTROLS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "plain": {"temperature": 1.0},
    "narrow": {"temperature": 1.0, "top_k": 5},
    "nucleus": {"temperature": 1.0, "top_p": 0.9},
    "wide": {"temperature": 1.0, "typical_p": 0.5},
    "penalties": {"repetition_penalty": 1.3, "frequency_penalty": 0.5},
    "logprobs": {"logprobs": 3},
    "allowed": {"allowed_ids": (3, 4, 5)},
    "min_tokens": {"min_tokens": 4, "stop_ids": (7,)},
}


@pytest.mark.parametrize("number", [NAN, INF, -INF])
@pytest.mark.parametrize("controls", CONTROLS)
def test_nan_stays_in_its_row(model: Path, expected: list[int], controls: str, number: float) -> None:
    runner = make_runner(model, TPGroup(), Scenario())
    poison(runner, number)
    ids = ids_of(runner, plans_of(SPOILED, CONTROLS[controls]))
    assert ids[1] == [FAILED, FAILED]
    assert ids[0] == ids[2] == expected


@pytest.mark.parametrize("number", [NAN, INF])
@pytest.mark.parametrize("most", [0, 3])
def test_nan_log_probabilities_of_a_prompt_end_the_request(model: Path, number: float, most: int) -> None:
    """Also where the row that samples is good: the log-probabilities that were asked for are NaN."""
    runner = make_runner(model, TPGroup(), Scenario())
    head = runner._model.logits
    prompts: list[int] = []

    def logits(hidden: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        found = head(hidden, rows)
        if len(rows) > 3:  # those of the prompt, in the first call
            prompts.append(len(rows))
            found[2, 5] = number
        return found

    class Spoiled:
        hidden = runner._model.hidden

    Spoiled.logits = staticmethod(logits)
    runner._model = Spoiled  # type: ignore[assignment]
    sampling = replace(GREEDY, prompt_logprobs=most)
    plan = Plan(
        1,
        1,
        admissions=(Admission(0, 1, "r", PROMPT, 0, 0, sampling),),
        grants=(Grant(0, (0, 1)),),
        chunks=(Chunk(0, 0, len(PROMPT)),),
    )
    output = runner.execute(runner.prepare(plan)).to_host()
    assert prompts == [len(PROMPT) - 1]
    assert output.ids[0] >= 0
    ends = FinishDetector(8, eos_ids=frozenset(), max_model_len=128)
    ends.admit(plan.admissions[0])
    assert list(ends.advance(output)[1]) == [Finish.ERROR]


def test_the_slot_table_says_what_is_wrong(caplog: pytest.LogCaptureFixture) -> None:
    table = SlotTable(GroupShape(8, 2, 64), VOCAB)
    bad = Admission(0, 1, "r7", (VOCAB, 1), 0, 0, GREEDY)
    table.apply(Plan(1, 1, admissions=(bad,), grants=(Grant(0, (0,)),), chunks=(Chunk(0, 0, 2),)))
    [record] = caplog.records
    assert "r7" in record.getMessage()
    assert f"prompt: {VOCAB} is not below" in record.getMessage()
