"""The directory of one KV tier: which of its frames holds the KV of which key.

The ledger's part about tiers changes it; the plan builder and the placement look keys up in it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Set
from itertools import islice

from scheduler_svc.core.errors import ProtocolError


class TierDirectory:
    """Frames 0..frames-1 and their keys, least recently used first. Every operation takes constant time per
    frame.

    A frame is free, or holds a key, or is reserved: the plan that is being built spills into it. A frame that
    fetches read is pinned: it is not given to another key until the last of them has ended, whatever becomes
    of its own.

    It says what a correct group would hold. What a frame does not hold after all, the group reports.
    """

    def __init__(self, number: int, frames: int) -> None:
        """``number``: of the tier, among those of its group."""
        self.number = number
        self.frames = frames
        self._frames: OrderedDict[bytes, int] = OrderedDict()  # by key
        self._keys: list[bytes | None] = [None] * frames
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(frames))
        self._reserved: dict[bytes, int] = {}  # by the key that the frame is to hold
        self._pins: dict[int, int] = {}  # fetches by frame; none is 0

    def __contains__(self, key: object) -> bool:
        return key in self._frames

    @property
    def by_key(self) -> Mapping[bytes, int]:
        """The frame by its key. To be read only."""
        return self._frames

    @property
    def pins(self) -> Mapping[int, int]:
        """How many fetches read each frame; those without any are left out. To be read only."""
        return self._pins

    def find(self, key: bytes) -> int | None:
        """The frame that holds what ``key`` stands for."""
        return self._frames.get(key)

    def will_have(self, key: bytes) -> bool:
        """Whether a frame holds the key, or will once the plan that is being built is complete."""
        return key in self._frames or key in self._reserved

    @property
    def num_unpinned(self) -> int:
        """Frames that no fetch reads."""
        return self.frames - len(self._pins)

    def next_frames(self, count: int, keeping: Set[int] = frozenset()) -> list[int]:
        """The ``count`` frames to write next, in this order: free ones, then those with the keys that were
        not used for the longest time. Fewer if the others are pinned, reserved or to be kept."""
        found = list(islice(self._free, count))
        if len(found) < count:
            unpinned = (
                frame for frame in self._frames.values() if frame not in self._pins and frame not in keeping
            )
            found += islice(unpinned, count - len(found))
        return found

    def touch(self, key: bytes) -> None:
        """The key is used: of those that are there, it is the last to go."""
        if key in self._frames:
            self._frames.move_to_end(key)

    def reserve(self, frame: int, key: bytes) -> None:
        """The plan that is being built spills ``key`` into a frame, which loses what it holds.

        Raises ProtocolError where the key is there already, or the frame is pinned or reserved.
        """
        if self.will_have(key):
            raise ProtocolError(f"a key is spilled to tier {self.number} and is there already")
        self.drop(frame)
        if frame not in self._free:
            raise ProtocolError(f"frame {frame} of tier {self.number} is spilled to and is in use")
        del self._free[frame]
        self._reserved[key] = frame

    def fill(self) -> None:
        """The plan is complete: reserved frames can be fetched from by later ones."""
        for key, frame in self._reserved.items():
            self._frames[key], self._keys[frame] = frame, key
        self._reserved.clear()

    def add(self, frame: int, key: bytes) -> None:
        """A free frame holds a key, as the group reports. If another frame has the same key, that one stays.

        Raises ProtocolError where the frame holds something already.
        """
        self._check_range(frame)
        if frame not in self._free:
            raise ProtocolError(f"frame {frame} of tier {self.number} holds two things")
        if key not in self._frames:
            del self._free[frame]
            self._frames[key], self._keys[frame] = frame, key

    def drop(self, frame: int) -> bytes | None:
        """A frame holds nothing; returns the key that it held, if any was known. Raises ProtocolError where
        there is no such frame."""
        self._check_range(frame)
        key = self._keys[frame]
        if key is not None:
            del self._frames[key]
            self._keys[frame] = None
            if frame not in self._pins:
                self._free[frame] = None
        return key

    def forget(self, key: bytes) -> None:
        """What ``key`` stands for is not to be used any more."""
        frame = self._frames.get(key)
        if frame is not None:
            self.drop(frame)

    def pin(self, frame: int) -> None:
        """One more fetch reads a frame, which holds a key."""
        self._pins[frame] = self._pins.get(frame, 0) + 1

    def unpin(self, frame: int) -> None:
        """One of the fetches that read a frame has ended."""
        left = self._pins.pop(frame) - 1
        if left:
            self._pins[frame] = left
        elif self._keys[frame] is None:
            self._free[frame] = None

    def check(self, pins: Mapping[int, int]) -> list[str]:
        """What is wrong with the directory, given how many fetches really read each frame."""
        wrong = []
        if self._pins != pins:
            wrong.append(f"frames {dict(self._pins)} are pinned, fetches read {dict(pins)}")
        keys, empty = self._keys, self._keys.count(None)
        if self.frames - empty != len(self._frames) or any(keys[f] != key for key, f in self._frames.items()):
            wrong.append("the frames by key and the keys of the frames differ")
        free = [frame for frame in self._free if keys[frame] is None and frame not in pins]
        if not len(free) == len(self._free) == empty - sum(keys[frame] is None for frame in pins):
            wrong.append(
                f"{len(self._free)} frames are free, of which {len(free)} hold nothing and are not read"
            )
        if self._reserved:
            wrong.append(f"frames {sorted(self._reserved.values())} are reserved, and no plan is being built")
        return [f"tier {self.number}: {text}" for text in wrong]

    def _check_range(self, frame: int) -> None:
        if not 0 <= frame < self.frames:
            raise ProtocolError(f"frame {frame} of tier {self.number}, which has {self.frames}")
