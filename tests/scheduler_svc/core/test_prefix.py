"""What the prefix cache finds, and what it must not."""

from __future__ import annotations

from albireo.contract.plan import Admission

from .samples import prompt
from .world import World, world


def admissions(w: World) -> dict[str, Admission]:
    return {admission.request_id: admission for plan in w.plans for admission in plan.admissions}


def test_a_prompt_finds_its_settled_prefix() -> None:
    w = world(chunk=64)
    w.submit("a", prompt(40), max_tokens=2)
    w.drain(10)
    w.submit("b", (*prompt(40)[:36], 1, 2, 3), max_tokens=2)
    w.drain(10)
    assert admissions(w)["b"].num_cached == 32
    stats = w.core.stats()
    assert (stats.prompt_tokens, stats.prefix_hit_tokens, stats.blocks_cached) == (79, 32, 2)


def test_the_last_token_is_always_computed() -> None:
    w = world(chunk=64)
    w.submit("a", prompt(32), max_tokens=1)
    w.drain(10)
    w.submit("b", prompt(32), max_tokens=1)
    w.drain(10)
    assert admissions(w)["b"].num_cached == 16


def test_outputs_are_found_too() -> None:
    w = world(chunk=64)
    w.submit("a", prompt(20), max_tokens=20, ignore_eos=True)
    w.drain(40)
    w.submit("b", (*prompt(20), *w.stories["a"].read), max_tokens=1)
    w.drain(10)
    assert admissions(w)["b"].num_cached == 32


def test_what_has_not_settled_is_not_found() -> None:
    w = world(chunk=64, ahead=2)
    w.submit("a", prompt(40), max_tokens=4, ignore_eos=True)
    w.plan()
    w.submit("b", prompt(40), max_tokens=4, ignore_eos=True)
    w.plan()
    assert admissions(w)["b"].num_cached == 0
    w.drain(20)


def test_running_requests_share_blocks() -> None:
    w = world(chunk=64)
    w.submit("a", prompt(40), max_tokens=30, ignore_eos=True)
    w.step()
    w.submit("b", prompt(40), max_tokens=30, ignore_eos=True)
    w.step()
    assert admissions(w)["b"].num_cached == 32
    tables = list(w.auditor.tables.values())
    assert tables[0][:2] == tables[1][:2]
    assert w.core.stats().blocks_free == 64 - 4
    w.drain(60)


def test_off_is_off() -> None:
    w = world(prefix_cache=False)
    for name in ("a", "b"):
        w.submit(name, prompt(40), max_tokens=2)
        w.drain(10)
    assert admissions(w)["b"].num_cached == 0
    assert w.core.stats().blocks_cached == 0


def test_a_chain_is_evicted_from_its_tail() -> None:
    w = world(num_blocks=6, max_model_len=90, chunk=64)
    w.submit("a", prompt(64), max_tokens=1)
    w.drain(10)
    w.submit("other", prompt(40, 1), max_tokens=1)  # takes the two blocks without a key, and one cached
    w.drain(10)
    w.submit("b", prompt(65), max_tokens=1)
    w.drain(10)
    assert admissions(w)["b"].num_cached == 48
