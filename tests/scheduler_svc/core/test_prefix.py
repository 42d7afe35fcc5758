"""What the prefix cache finds, and what it must not."""

from __future__ import annotations

from albireo.contract.plan import Admission
from scheduler_svc.core.blocks import BlockPool, block_key, root_key

from .world import World, prompt, world


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
    tables = list(w.tables.values())
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


def test_the_least_recently_used_goes_first() -> None:
    pool = BlockPool(3)
    keys = [block_key(root_key(b"", ""), prompt(16, salt)) for salt in range(3)]
    blocks = pool.next_free(3)
    pool.take(blocks)
    for block, key in zip(blocks, keys, strict=True):
        pool.register(block, key)
        pool.drop([block])
    pool.share(blocks[:1])
    pool.drop(blocks[:1])
    assert pool.next_free(1) == [blocks[1]]
    pool.take(blocks[1:2])
    assert [pool.find(key) for key in keys] == [blocks[0], None, blocks[2]]
    assert pool.check([int(block == blocks[1]) for block in range(3)]) == []


def test_a_key_stands_for_all_that_came_before() -> None:
    one, two = prompt(16), prompt(16, 1)
    root = root_key(b"salt", "")
    assert block_key(block_key(root, one), two) != block_key(block_key(root, two), two)
    assert block_key(root, one) != block_key(root_key(b"other salt", ""), one)
    assert block_key(root, one) != block_key(root_key(b"salt", "another tenant"), one)
