"""The pool of KV blocks, and the prefix cache that consists of them.

The ledger changes it; the plan builder and the audit read it.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice

from scheduler_svc.core.errors import ProtocolError

_EMPTY = hashlib.blake2b(digest_size=16)


def root_key(salt: bytes, sharers: str) -> bytes:
    """Parent of the keys of first blocks, one for each party that has a prefix cache of its own.

    The salt makes keys impossible to guess outside the deployment. ``sharers`` (a tenant, or empty for all)
    separates parties: a hit on a block reveals that its tokens, and all before them, were sent before.
    """
    parent = hashlib.blake2b(salt, digest_size=16).digest()
    return hashlib.blake2b(parent + sharers.encode(), digest_size=16).digest()


def block_key(parent: bytes, tokens: array[int]) -> bytes:
    """Key of one full block: it stands for the block's tokens and for all those before them.

    ``tokens``: of 4 bytes each, as in a request."""
    state = _EMPTY.copy()  # faster than a new one
    state.update(parent)
    state.update(tokens)
    return state.digest()


class BlockPool:
    """Blocks 0..num_blocks-1 with their owner counts. Every operation takes constant time per block.

    An owner is a block table that contains the block. A block without an owner is free. If it has a key, it
    also stays in the prefix cache until it is taken. The free list is in the order of eviction: blocks
    without a key first, then the cached ones, least recently used first.

    A block that is being copied to a tier is held: it cannot be taken, though it may be shared.

    The pool knows nothing of steps: its caller drops a block, and lets go of it, only when no step in flight
    uses it, and registers a block only when its content has settled.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._owners = [0] * num_blocks
        self._keys: list[bytes | None] = [None] * num_blocks
        self._by_key: dict[bytes, int] = {}
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._held: dict[int, int] = {}  # copies that read a block; none is 0
        self._withheld: set[int] = set()  # those of the held ones that are in ``_free``

    @property
    def num_free(self) -> int:
        """Blocks that can be taken, cached ones included."""
        return len(self._free) - len(self._withheld)

    @property
    def num_withheld(self) -> int:
        """Blocks without an owner that cannot be taken, since they are held."""
        return len(self._withheld)

    @property
    def num_cached(self) -> int:
        """Blocks that a prefix can hit."""
        return len(self._by_key)

    @property
    def cached(self) -> Mapping[bytes, int]:
        """The prefix cache: the block by its key. To be read only."""
        return self._by_key

    def owners(self, block: int) -> int:
        """How many block tables contain the block."""
        return self._owners[block]

    def next_free(self, count: int, *, excluding: Collection[int] = ()) -> list[int]:
        """The first ``count`` free blocks in the order of eviction; fewer if there are not so many."""
        free: Iterable[int] = self._free
        if excluding:
            free = (block for block in free if block not in excluding)
        if self._withheld:
            free = (block for block in free if block not in self._withheld)
        return list(islice(free, count))

    def take(self, blocks: Sequence[int]) -> None:
        """Gives free blocks to one owner each; they leave the prefix cache.

        Raises ProtocolError if one is not free.
        """
        free, keys, withheld = self._free, self._keys, self._withheld
        for block in blocks:
            if block not in free or block in withheld:
                raise ProtocolError(f"block {block} is granted and is not free")
            del free[block]
            if keys[block] is not None:
                self.unregister(block)
            self._owners[block] = 1

    def find(self, key: bytes) -> int | None:
        """The block that holds what ``key`` stands for, if it is cached."""
        return self._by_key.get(key)

    def count_freed(self, blocks: Sequence[int]) -> int:
        """How many of the blocks of a table are free once the table is dropped."""
        return sum(self._owners[block] == 1 and block not in self._held for block in blocks)

    def share(self, blocks: Sequence[int]) -> None:
        """Adds an owner to blocks that hold a prefix.

        Raises ProtocolError if one has neither an owner nor a key.
        """
        for block in blocks:
            if not 0 <= block < self.num_blocks or not (self._owners[block] or self._keys[block]):
                raise ProtocolError(f"block {block} is shared and holds nothing")
            if not self._owners[block]:
                del self._free[block]
                self._withheld.discard(block)
            self._owners[block] += 1

    def drop(self, blocks: Sequence[int]) -> None:
        """Removes one owner from each block of a table. The last block of the table becomes the first to be
        evicted: a later block of a prefix is useless without the earlier ones."""
        for block in reversed(blocks):
            self._owners[block] -= 1
            if not self._owners[block]:
                self._free[block] = None
                if self._keys[block] is None:
                    self._free.move_to_end(block, last=False)
                if block in self._held:
                    self._withheld.add(block)

    def hold(self, block: int) -> None:
        """One more copy reads a block."""
        self._held[block] = self._held.get(block, 0) + 1
        if not self._owners[block]:
            self._withheld.add(block)

    def let_go(self, block: int) -> None:
        """One of the copies that read a block has ended."""
        left = self._held.pop(block) - 1
        if left:
            self._held[block] = left
        else:
            self._withheld.discard(block)

    def is_held(self, block: int) -> bool:
        """Whether a copy reads the block."""
        return block in self._held

    def register(self, block: int, key: bytes) -> None:
        """Adds a full settled block to the cache. If another block has the same key, that one stays."""
        if key not in self._by_key:
            self._by_key[key] = block
            self._keys[block] = key

    def unregister(self, block: int) -> None:
        """Removes a block from the cache; its owners keep it."""
        key = self._keys[block]
        if key is not None:
            del self._by_key[key]
            self._keys[block] = None

    def key_of(self, block: int) -> bytes | None:
        """The key under which the block is cached."""
        return self._keys[block]

    def check(self, owners: Sequence[int], held: Mapping[int, int]) -> list[str]:
        """What is wrong with the pool, given how many block tables really contain each block, and how many
        copies in flight read it."""
        wrong = []
        if self._held != held:
            wrong.append(f"blocks {self._held} are held, copies in flight read {dict(held)}")
        if self._withheld != self._held.keys() & self._free.keys():
            wrong.append(f"blocks {sorted(self._withheld)} are withheld, those held are {self._held}")
        if self._owners != owners:
            wrong += [
                f"block {block}: {self._owners[block]} owners recorded, {count} block tables contain it"
                for block, count in enumerate(owners)
                if self._owners[block] != count
            ]
        free = {block for block, count in enumerate(self._owners) if not count}
        if free != self._free.keys():
            wrong.append(f"the free list is wrong about blocks {sorted(free ^ self._free.keys())}")
        cached = {key: block for block, key in enumerate(self._keys) if key is not None}
        if cached != self._by_key:
            wrong.append("the prefix cache's index and the blocks' keys differ")
        has_key = [self._keys[block] is not None for block in self._free]
        if has_key != sorted(has_key):
            wrong.append("a cached block comes before one without a key in the free list")
        return wrong
