"""What one tenant has sent another cannot find out from the prefix cache, nor does it gain by it.

The promise is that of ``tenant`` and ``cached_prompt_tokens`` in ``inference.proto``; blocks have 16 tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from albireo.contract import codec
from albireo.contract.plan import GroupShape, SamplingParams, Submission, branch_names, branches
from albireo.virtual.clock import VirtualClock
from tests.races.cluster import VirtualCluster
from tests.races.scene import Scene
from tests.scheduler_svc.core.samples import prompt

SECRET = prompt(50)
MakeScene = Callable[..., Scene]


@pytest.fixture
def make_scene() -> Iterator[MakeScene]:
    with VirtualClock() as clock, ExitStack() as closing:

        def make(**options: object) -> Scene:
            scene = Scene(VirtualCluster(clock), shape=GroupShape(64, 4, 256), **options)  # type: ignore[arg-type]
            closing.callback(scene.close)
            return scene

        yield make


def cached(scene: Scene, name: str, tenant: str, tokens: tuple[int, ...], n: int = 1) -> list[int]:
    """Runs a request to its end; the tokens of its prompt that each branch found computed."""
    submission = Submission(name, tokens, SamplingParams(max_tokens=2, seed=0), n=n, tenant=tenant)
    scene.submissions |= {branch.request_id: branch for branch in branches(submission)}
    scene.cluster.increment(scene.keys.waiting, n)
    scene.cluster.append(scene.keys.inbox, codec.submission_to_bytes(submission))
    found = {a.request_id: a.num_cached for plan in scene.finish() for a in plan.admissions}
    return [found[branch] for branch in branch_names(name, n)]


def test_a_tenant_learns_nothing_of_anothers_prompts(make_scene: MakeScene) -> None:
    scene = make_scene()
    assert cached(scene, "a1", "a", SECRET) == [0]
    for length in (16, 32, 48):  # a guess of its beginning, block by block
        guess = (*SECRET[:length], 1, 2)
        assert cached(scene, f"b{length}", "b", guess) == [length - 16]  # what b itself has sent
    assert cached(scene, "default", "default", SECRET) == [0]
    assert cached(scene, "a2", "a", SECRET) == [48]


def test_branches_share_within_a_request_and_not_beyond_the_tenant(make_scene: MakeScene) -> None:
    scene = make_scene()
    assert cached(scene, "a", "a", SECRET, n=3) == [0, 48, 48]
    assert cached(scene, "b", "b", SECRET, n=2) == [0, 48]


def test_tenants_share_where_the_operator_says_so(make_scene: MakeScene) -> None:
    scene = make_scene(shared_prefix_cache=True)
    assert cached(scene, "a", "a", SECRET) == [0]
    assert cached(scene, "b", "b", SECRET) == [48]
