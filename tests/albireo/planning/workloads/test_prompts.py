"""The token ids of a workload's prompts."""

from __future__ import annotations

from albireo.planning.workload import Workload, WorkloadRequest
from albireo.planning.workloads.prompts import prompt_ids


def ids(*requests: WorkloadRequest, seed: int = 0, salt: str = "") -> list[list[int]]:
    return list(prompt_ids(Workload("w", requests, seed=seed), 500, salt=salt))


def test_prompts_have_their_lengths_and_ids_of_the_vocabulary() -> None:
    found = ids(WorkloadRequest(0, 300, 1), WorkloadRequest(0, 4, 1))
    assert [len(prompt) for prompt in found] == [300, 4]
    assert all(0 <= token < 500 for prompt in found for token in prompt)
    assert len(set(found[0])) > 150


def test_requests_with_the_same_prefix_begin_alike_and_others_do_not() -> None:
    found = ids(
        WorkloadRequest(0, 30, 1, "a", 10),
        WorkloadRequest(0, 40, 1, "a", 20),
        WorkloadRequest(0, 30, 1, "a", 10),
        WorkloadRequest(0, 30, 1, "b", 10),
        WorkloadRequest(0, 30, 1),
    )
    assert [len(prompt) for prompt in found] == [30, 40, 30, 30, 30]
    assert found[0][:10] == found[1][:10] == found[2][:10]
    assert found[0][10:] != found[2][10:]
    assert found[0][:10] != found[3][:10]
    assert found[0][:10] != found[4][:10]


def test_ids_follow_seed_and_salt() -> None:
    requests = (WorkloadRequest(0, 30, 1, "a", 10), WorkloadRequest(0, 30, 1))
    assert ids(*requests, seed=1) == ids(*requests, seed=1)
    for other in (ids(*requests, seed=2), ids(*requests, seed=1, salt="warm-up")):
        assert all(a[:10] != b[:10] for a, b in zip(ids(*requests, seed=1), other, strict=True))
