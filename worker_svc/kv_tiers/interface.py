"""What a KV tier of one rank can do.

The directory of a group's tiers is the scheduler's: it says what is read and written where. A tier verifies:
it knows the key of each of its frames, and returns nothing under another key.

Two threads may use a tier at the same time, for different frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from worker_svc.kv_tiers.faults import Faults


class TierSpeed(NamedTuple):
    """Seconds for one block, where many follow one another."""

    read_block_seconds: float
    write_block_seconds: float


class Tier(Protocol):
    """Frames 0 to ``frames`` - 1, each of which holds the KV of one block on this rank, or nothing."""

    @property
    def name(self) -> str:
        """For people and metrics: host, disk."""
        ...

    @property
    def frames(self) -> int: ...

    @property
    def faults(self) -> Faults:
        """What went wrong so far."""
        ...

    def contents(self) -> dict[int, bytes]:
        """The key of each frame that holds a block."""
        ...

    def read(self, frames: Sequence[int], keys: Sequence[bytes], layers: range, out: Tensor) -> list[int]:
        """Copies consecutive layers of some frames to ``out`` ``[n, len(layers), *part_shape]``.

        Each ``out[i]`` is contiguous host memory. Returns the positions that could not be read, ascending:
        the frame holds another key or nothing, or not what was written to it. Their ``out`` is undefined.
        Frames that turn out to be damaged hold nothing from then on. Raises no error for any of this.
        """
        ...

    def write(self, frames: Sequence[int], keys: Sequence[bytes], blocks: Tensor) -> list[int]:
        """Stores whole blocks, ``[n, *block_shape]`` in host memory with each ``blocks[i]`` contiguous.

        The frames differ. Returns the positions that could not be written, ascending; those frames hold
        nothing from then on. Raises no error for any of this.
        """
        ...

    def forget(self, frames: Iterable[int]) -> None:
        """From now on these frames hold nothing."""
        ...

    def measure(self) -> TierSpeed:
        """How fast it is here; takes about 0.3 s at most and leaves all frames as they are."""
        ...

    def close(self) -> None:
        """No call may follow."""
        ...
