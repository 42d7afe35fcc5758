"""The pool of blocks, and the keys of its prefix cache."""

from __future__ import annotations

from array import array

from scheduler_svc.core.blocks import BlockPool, block_key, root_key

from .samples import prompt


def block(salt: int = 0) -> array[int]:
    return array("I", prompt(16, salt))


def test_the_least_recently_used_goes_first() -> None:
    pool = BlockPool(3)
    keys = [block_key(root_key(b"", ""), block(salt)) for salt in range(3)]
    blocks = pool.next_free(3)
    pool.take(blocks)
    for number, key in zip(blocks, keys, strict=True):
        pool.register(number, key)
        pool.drop([number])
    pool.share(blocks[:1])
    pool.drop(blocks[:1])
    assert pool.next_free(1) == [blocks[1]]
    pool.take(blocks[1:2])
    assert [pool.find(key) for key in keys] == [blocks[0], None, blocks[2]]
    assert pool.check([int(number == blocks[1]) for number in range(3)], {}) == []


def test_a_key_stands_for_all_that_came_before() -> None:
    one, two = block(), block(1)
    root = root_key(b"salt", "")
    assert block_key(block_key(root, one), two) != block_key(block_key(root, two), two)
    assert block_key(root, one) != block_key(root_key(b"other salt", ""), one)
    assert block_key(root, one) != block_key(root_key(b"salt", "another tenant"), one)
