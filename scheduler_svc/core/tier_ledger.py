"""The part of a group's ledger that concerns its KV tiers.

The ledger makes and changes it; the plan builder, the placement and the audit read it.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import asdict
from itertools import chain

from albireo.contract.plan import BLOCK_SIZE, StepResult
from albireo.contract.tiers import Fetch, Offload, Spill, TierShape
from scheduler_svc.core.blocks import BlockPool
from scheduler_svc.core.directory import TierDirectory
from scheduler_svc.core.errors import ProtocolError
from scheduler_svc.core.fetching import Fetching, Source
from scheduler_svc.core.request import Occupancy
from scheduler_svc.core.step_in_flight import StepInFlight
from scheduler_svc.core.streaming import Streaming
from scheduler_svc.core.tier_stats import TierCounters, TierStats


class TierLedger:
    """What the tiers hold, what is on the way to them and from them, and what they do not hold yet.

    A block that is spilled is held until the step of the plan has settled, unless the same plan grants it
    anew: then the group copies it before the step begins. A fetch pins its frames until the first step that
    reads them has settled; only then its blocks are in the prefix cache.

    A cached block is *dirty* for a tier from when it is cached until it is spilled there, unless the tier had
    its key before. It is no more dirty if the frame is lost, or goes to another key: it would be copied again
    and again where a tier is full or broken.

    No tiers, no cost: then nothing here is called but by plans and results that have no place there.
    """

    def __init__(self, tiers: Sequence[TierShape], pool: BlockPool) -> None:
        self._tiers = tuple(tiers)
        self.directories = tuple(TierDirectory(number, tier.frames) for number, tier in enumerate(tiers))
        self.counters = tuple(TierCounters() for _ in tiers)
        self.unknown = bool(tiers)  # whether the group has still to report what its tiers hold
        self._pool = pool
        # The blocks that became dirty first come first; each has the keys of its occupancy once that is over.
        self._dirty: tuple[OrderedDict[int, Sequence[bytes]], ...] = tuple(OrderedDict() for _ in tiers)
        self._spilled: Counter[int] = Counter()  # blocks that the plan being built holds
        self._spilling: list[tuple[int, int]] = []  # tiers and frames that it writes
        self._copying: dict[tuple[int, int], int] = {}  # the step in flight by the frame that it writes
        self._completed: dict[int, Sequence[bytes]] = {}  # keys of occupancies it spills parts of, by id

    # -- the plans ----------------------------------------------------------------------------------

    def spill(self, spill: Spill, uncached: Set[tuple[int, bytes]] = frozenset()) -> None:
        """Blocks are copied to frames. These can be fetched from by later plans. ``uncached``: blocks and
        keys that are right although they are not in the prefix cache."""
        directory, dirty, pool = self._directory(spill.tier), self._dirty[spill.tier], self._pool
        for block, frame, key in zip(spill.blocks, spill.frames, spill.keys, strict=True):
            in_range = 0 <= block < pool.num_blocks
            if not in_range or (pool.key_of(block) != key and (block, key) not in uncached):
                raise ProtocolError(f"block {block} is spilled, and does not hold that key")
            directory.reserve(frame, key)
            pool.hold(block)
            self._spilled[block] += 1
            self._spilling.append((spill.tier, frame))
            if keys := dirty.pop(block, ()):
                self._completed[id(keys)] = keys
        self.counters[spill.tier].blocks_spilled += len(spill.blocks)

    def fetch(self, occupancy: Occupancy, fetch: Fetch) -> None:
        """Blocks that come with the first grant of an occupancy are filled from frames."""
        directory = self._directory(fetch.tier)
        if occupancy.blocks:
            raise ProtocolError(f"a fetch for slot {occupancy.slot}, which has blocks already")
        if occupancy.fetching is None:
            occupancy.fetching = Fetching()
        sources = occupancy.fetching.sources
        for block, frame, key in zip(fetch.blocks, fetch.frames, fetch.keys, strict=True):
            if directory.find(key) != frame or block in sources:
                raise ProtocolError(f"frame {frame} of tier {fetch.tier} is fetched and holds something else")
            directory.pin(frame)
            sources[block] = Source(fetch.tier, frame, key)
        counters = self.counters[fetch.tier]
        counters.blocks_fetched += len(fetch.blocks)
        if occupancy.first:
            counters.prefix_hit_tokens += BLOCK_SIZE * len(fetch.blocks)

    def offload(self, occupancy: Occupancy, streaming: Streaming, offload: Offload) -> None:
        """The next blocks of a slot are read from frames, which hold them already."""
        directory = self._directory(offload.tier)
        for frame, key in zip(offload.frames, offload.keys, strict=True):
            position = len(streaming.sources)
            if key != occupancy.request.key(position) or self.find_copied(directory, key) != frame:
                raise ProtocolError(
                    f"frame {frame} of tier {offload.tier} is streamed, it holds another block"
                )
            directory.pin(frame)
            streaming.sources.append(Source(offload.tier, frame, key))
        if occupancy.first and not occupancy.blocks:  # found by its admission
            self.counters[offload.tier].prefix_hit_tokens += BLOCK_SIZE * len(offload.frames)

    def split(self, occupancy: Occupancy, prefix: Sequence[int]) -> tuple[list[int], list[int]]:
        """The blocks of the first grant that hold a prefix: those to share, and those that are fetched."""
        sources = occupancy.fetching.sources if occupancy.fetching else {}
        shared = [block for block in prefix if block not in sources]
        fetched = {block: index for index, block in enumerate(prefix) if block in sources}
        right = all(sources[block].key == occupancy.request.key(index) for block, index in fetched.items())
        if len(fetched) != len(sources) or not right:
            raise ProtocolError(f"slot {occupancy.slot} is granted other blocks than are fetched for it")
        return shared, list(fetched)

    def regrant(self, blocks: Iterable[int]) -> None:
        """Free blocks are granted: those that the same plan spills are not held any longer."""
        for block in blocks:
            for _ in range(self._spilled.pop(block, 0)):
                self._pool.let_go(block)

    def publish(self, step: StepInFlight) -> None:
        """The plan is complete."""
        step.spilled = dict(self._spilled)
        self._spilled.clear()
        self._copying |= dict.fromkeys(self._spilling, step.step)
        step.written, self._spilling = self._spilling, []
        for directory in self.directories:
            directory.fill()
        for keys in self._completed.values():
            self._touch(keys)
        self._completed.clear()

    # -- the results --------------------------------------------------------------------------------

    def settle(self, step: StepInFlight, result: StepResult) -> set[bytes]:
        """The copies of a step to the tiers have left their blocks, and the group reports what its tiers
        hold. Returns the keys that are lost."""
        keys = set[bytes]()
        for block, copies in step.spilled.items():
            for _ in range(copies):
                self._pool.let_go(block)
        for written in step.written:
            if self._copying.get(written) == step.step:
                del self._copying[written]
        for lost in result.lost:
            directory = self._directory(lost.tier)
            found = [key for frame in lost.frames if (key := directory.drop(frame)) is not None]
            self.counters[lost.tier].frames_lost += len(found)
            keys.update(found)
        if self.unknown:
            for contents in result.contents:
                directory = self._directory(contents.tier)
                for frame, key in zip(contents.frames, contents.keys, strict=True):
                    directory.add(frame, key)
            self.unknown = not result.contents_end
        return keys

    def fetched(self, occupancy: Occupancy) -> None:
        """The first step that reads the fetches of an occupancy has settled: its blocks can be shared."""
        for block, source in self._end_fetch(occupancy):
            self._pool.register(block, source.key)
            self.registered([block])

    def failed(self, occupancy: Occupancy) -> None:
        """A step that reads frames for an occupancy did without: they hold nothing."""
        sources = [source for _, source in self._end_fetch(occupancy)]
        if occupancy.streaming is not None:  # steps in flight may still read them: they stay pinned
            sources += occupancy.streaming.sources
        for source in sources:
            self.directories[source.tier].drop(source.frame)
        for tier in {source.tier for source in sources}:
            self.counters[tier].fetches_failed += 1
        occupancy.unfetched = True

    def freed(self, occupancy: Occupancy) -> None:
        """The occupancy is over. Of what it has used, the last blocks are the first to go, also once those
        are spilled that are dirty still."""
        self._end_fetch(occupancy)
        streaming, occupancy.streaming = occupancy.streaming, None
        sources = streaming.sources if streaming is not None else []
        for source in sources:
            self.directories[source.tier].unpin(source.frame)
        keys = [occupancy.request.key(index) for index in range(occupancy.registered)]
        self._touch(keys)
        for dirty in self._dirty:
            for block in occupancy.blocks[: occupancy.registered - len(sources)]:
                if block in dirty:
                    dirty[block] = keys

    def registered(self, blocks: Iterable[int]) -> None:
        """Blocks have been offered to the prefix cache."""
        for block in blocks:
            key = self._pool.key_of(block)
            for directory, dirty in zip(self.directories, self._dirty, strict=True):
                if key is not None and key not in directory:
                    dirty[block] = ()

    def forget(self, occupancy: Occupancy) -> None:
        """The KV of an occupancy may be invalid."""
        for index in range(occupancy.registered):
            for directory in self.directories:
                directory.forget(occupancy.request.key(index))

    # -- looking at it ------------------------------------------------------------------------------

    def is_missing(self, block: int, tier: int) -> bool:
        """Whether a block is cached, and the tier has not its key, nor will have it by this plan."""
        key = self._pool.key_of(block)
        return key is not None and not self.directories[tier].will_have(key)

    def find_copied(self, directory: TierDirectory, key: bytes) -> int | None:
        """The frame that holds what ``key`` stands for, if the step that wrote it has settled."""
        frame = directory.find(key)
        return None if frame is None or (directory.number, frame) in self._copying else frame

    def next_dirty(self, tier: int, count: int) -> list[int]:
        """The ``count`` blocks that have been dirty for a tier for the longest time, or all there are."""
        dirty, found, clean = self._dirty[tier], list[int](), list[int]()
        for block in dirty:
            if len(found) == count:
                break
            (found if self.is_missing(block, tier) else clean).append(block)
        for block in clean:  # they are not cached any more, or were moved out under the same key
            del dirty[block]
        return found

    def stats(self) -> tuple[TierStats, ...]:
        """Those of all tiers."""
        return tuple(
            TierStats(tier.name, tier.frames, len(directory.by_key), **asdict(counters))
            for tier, directory, counters in zip(self._tiers, self.directories, self.counters, strict=True)
        )

    def check(self, occupancies: Sequence[Occupancy]) -> Iterator[str]:
        """What is wrong with it, given the occupancies that have not ended."""
        fetching = [o.fetching for o in occupancies if o.fetching is not None]
        streamed = [o.streaming.sources for o in occupancies if o.streaming is not None]
        sources = list(chain.from_iterable(one.sources.values() for one in fetching))
        sources += chain.from_iterable(streamed)
        for directory in self.directories:
            pins = Counter(source.frame for source in sources if source.tier == directory.number)
            yield from directory.check(pins)
        for block in chain.from_iterable(one.sources for one in fetching):
            if self._pool.owners(block) != 1 or self._pool.key_of(block) is not None:
                yield f"block {block} is shared or cached, and its fetch has not settled"

    def _touch(self, keys: Sequence[bytes]) -> None:
        """The keys of a prefix are used, the first ones last."""
        for directory in self.directories:
            for key in reversed(keys):
                directory.touch(key)

    def _end_fetch(self, occupancy: Occupancy) -> list[tuple[int, Source]]:
        """The fetches of an occupancy, if any, end in one way or another. Returns what they were."""
        fetching, occupancy.fetching = occupancy.fetching, None
        sources = list(fetching.sources.items()) if fetching else []
        for _, source in sources:
            self.directories[source.tier].unpin(source.frame)
        return sources

    def _directory(self, tier: int) -> TierDirectory:
        if not 0 <= tier < len(self.directories):
            raise ProtocolError(f"there is no tier {tier}")
        return self.directories[tier]
