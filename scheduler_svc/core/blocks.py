"""The pool of KV blocks, and the prefix cache that lives in it."""

from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from albireo.contract.plan import BLOCK_SIZE

_pack_tokens = struct.Struct(f"<{BLOCK_SIZE}I").pack


def root_key(salt: bytes, sharers: str) -> bytes:
    """Parent of the keys of first blocks, one for each party that shares what it has computed.

    The salt keeps keys unguessable outside the deployment. ``sharers`` keeps parties from one another's
    blocks: who hits a block learns that somebody sent its tokens and all before them.
    """
    parent = hashlib.blake2b(salt, digest_size=16).digest()
    return hashlib.blake2b(parent + sharers.encode(), digest_size=16).digest()


def block_key(parent: bytes, tokens: Sequence[int]) -> bytes:
    """Key of one full block: it stands for the block's tokens and for all those before them."""
    return hashlib.blake2b(parent + _pack_tokens(*tokens), digest_size=16).digest()


class BlockPool:
    """Blocks 0..num_blocks-1, counted by owners. Every operation takes constant time per block.

    A block without an owner is free. If it has a key it also stays in the prefix cache until it is taken
    for something else: the free list is in the order in which blocks go, those without a key first, then
    the cached ones, least recently used first.

    The pool knows nothing of steps: its caller drops a block only once no step in flight touches it, and
    registers a block only once its content has settled.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._owners = [0] * num_blocks
        self._keys: list[bytes | None] = [None] * num_blocks
        self._by_key: dict[bytes, int] = {}
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))

    @property
    def num_free(self) -> int:
        """Blocks that can be taken, cached ones included."""
        return len(self._free)

    @property
    def num_cached(self) -> int:
        """Blocks that a prefix can hit."""
        return len(self._by_key)

    def owners(self, block: int) -> int:
        """How many block tables hold the block."""
        return self._owners[block]

    def take(self, count: int) -> list[int]:
        """Takes ``count`` blocks for one owner each; the caller has made sure that they are there."""
        taken = []
        for _ in range(count):
            block, _ = self._free.popitem(last=False)
            key = self._keys[block]
            if key is not None:
                del self._by_key[key]
                self._keys[block] = None
            self._owners[block] = 1
            taken.append(block)
        return taken

    def find(self, key: bytes) -> int | None:
        """The block that holds what ``key`` stands for, if the cache has it."""
        return self._by_key.get(key)

    def share(self, blocks: Iterable[int]) -> None:
        """Adds an owner to blocks that were found."""
        for block in blocks:
            if not self._owners[block]:
                del self._free[block]
            self._owners[block] += 1

    def drop(self, blocks: Sequence[int]) -> None:
        """Takes one owner off each block of a table. The table's tail goes first, since a chain of hits
        is of no use without its head."""
        for block in reversed(blocks):
            self._owners[block] -= 1
            if not self._owners[block]:
                self._free[block] = None
                if self._keys[block] is None:
                    self._free.move_to_end(block, last=False)

    def register(self, block: int, key: bytes) -> None:
        """Makes a full settled block findable. Where another block holds the same, that one stays."""
        if key not in self._by_key:
            self._by_key[key] = block
            self._keys[block] = key

    def unregister(self, block: int) -> None:
        """Nobody finds an owned block any more; who has it keeps it."""
        key = self._keys[block]
        if key is not None:
            del self._by_key[key]
            self._keys[block] = None

    def key_of(self, block: int) -> bytes | None:
        """The key under which the block can be found."""
        return self._keys[block]

    def check(self, owners: Sequence[int]) -> list[str]:
        """What is wrong with the pool, given how many block tables really hold each block."""
        wrong = [
            f"block {block}: {self._owners[block]} owners on the books, {count} block tables hold it"
            for block, count in enumerate(owners)
            if self._owners[block] != count
        ]
        free = {block for block, count in enumerate(self._owners) if not count}
        if free != self._free.keys():
            wrong.append(f"free list off by blocks {sorted(free ^ self._free.keys())}")
        findable = {key: block for block, key in enumerate(self._keys) if key is not None}
        if findable != self._by_key:
            wrong.append("the prefix cache's index and the blocks' keys differ")
        kept = [self._keys[block] is not None for block in self._free]
        if kept != sorted(kept):
            wrong.append("a cached block stands before one without a key in the free list")
        return wrong
