"""The requests that a load run sends."""

from __future__ import annotations

from albireo.planning.workload import Workload, WorkloadRequest
from albireo.planning.workloads.draw import make_workload
from bench.serve.load import make_requests


def test_requests_have_the_lengths_of_the_workload_and_ignore_end_tokens() -> None:
    workload = make_workload("uniform:1-60", "uniform:1-60", num_requests=200)
    made = make_requests(workload, 50)
    lengths = [(len(m.token_ids.ids), m.sampling.max_tokens) for m in made]
    assert lengths == [(r.prompt, r.outputs) for r in workload.requests]
    assert all(token < 50 for m in made for token in m.token_ids.ids)
    assert all(m.sampling.ignore_eos for m in made)
    assert len({m.sampling.seed for m in made}) == 200


def test_requests_sample_as_the_workload_says() -> None:
    request = (WorkloadRequest(0, 5, 5),)
    [greedy] = make_requests(Workload("w", request), 50)
    [drawn] = make_requests(Workload("w", request, sampling="drawn"), 50)
    [penalized] = make_requests(Workload("w", request, sampling="penalized"), 50)
    assert greedy.sampling.temperature == 0
    assert greedy.sampling.repetition_penalty == 1  # whatever the checkpoint's default is
    assert drawn.sampling.temperature > 0
    assert not drawn.sampling.presence_penalty
    assert penalized.sampling.temperature > 0
    assert penalized.sampling.presence_penalty


def test_controls_replace_those_of_the_workload() -> None:
    [made] = make_requests(Workload("w", (WorkloadRequest(0, 5, 5),)), 50, controls={"temperature": 0.5})
    assert made.sampling.temperature == 0.5


def test_a_seed_makes_the_same_requests_and_a_salt_others() -> None:
    def make(seed: int, salt: str = "") -> list[bytes]:
        workload = make_workload("normal:20,5", "normal:20,5", num_requests=5, seed=seed)
        return [m.SerializeToString() for m in make_requests(workload, 99, salt=salt)]

    assert make(1) == make(1)
    assert make(1) != make(2)
    assert make(1) != make(1, "warm-up")
