"""The tier on a disk: the frames one after the other in a file, in buffered I/O, with checksums of parts.

What a frame holds is decided by its entry in the index alone, and whether that is still so by the checksums:
whatever goes wrong with a frame (an error of the disk, a file that was cut off, flipped bits, a process that
was killed while it wrote) makes it one that holds nothing.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Literal, Self

from torch import Tensor

from worker_svc.kv_tiers.disk_files import DiskFiles, open_files
from worker_svc.kv_tiers.disk_index import DiskIndex, entry_bytes, runs
from worker_svc.kv_tiers.disk_speed import MEASURED_BYTES, file_speed
from worker_svc.kv_tiers.errors import TierError
from worker_svc.kv_tiers.faults import Faults
from worker_svc.kv_tiers.interface import TierSpeed
from worker_svc.kv_tiers.layout import KvLayout
from worker_svc.kv_tiers.rows import Bytes, rows_of

logger = logging.getLogger(__name__)

CALL_BYTES = 64 << 20
"""Of one system call at most."""


class DiskTier:
    """Frames in a file that this process alone uses."""

    name = "disk"

    def __init__(self, files: DiskFiles, layout: KvLayout, frames: int) -> None:
        self.frames = frames
        self.faults = Faults(logger, self.name)
        self._files = files
        self._layers, self._part, self._block = layout.layers, layout.part_bytes, layout.block_bytes
        self._joined = max(1, CALL_BYTES // self._block)
        self._index = DiskIndex(files, frames, self._layers)
        try:
            self._index.load(min(frames, files.kept_bytes // self._block))
        except OSError as error:
            self.faults.add("index", error, frames)
        held = len(self._index.contents())
        logger.info("KV tier disk: %d of %d frames in %s hold blocks", held, frames, files.path)

    @classmethod
    def open(cls, directory: Path, size: int, layout: KvLayout) -> Self:
        """``size``: bytes of the frames. Raises TierError, which names the option."""
        frames = size // layout.block_bytes
        if frames < 1:
            raise TierError(
                f"--kv-disk-size: {max(0, size)} bytes hold no block, which takes {layout.block_bytes} bytes"
            )
        data_bytes = frames * layout.block_bytes + MEASURED_BYTES
        files = open_files(directory, layout, frames * entry_bytes(layout.layers), data_bytes)
        return cls(files, layout, frames)

    def contents(self) -> dict[int, bytes]:
        return self._index.contents()

    def read(self, frames: Sequence[int], keys: Sequence[bytes], layers: range, out: Tensor) -> list[int]:
        sums = self._index.sums(frames, keys, layers)
        rows, offset = rows_of(out), layers.start * self._part
        whole = len(layers) == self._layers
        held = [i for i, known in enumerate(sums) if known is not None]
        failed = [i for i, known in enumerate(sums) if known is None]
        if layers.start == 0 and not whole:
            self._announce([frames[i] for i in held])
        for group in self._groups(frames, held, joined=whole):
            start = frames[group[0]] * self._block + offset
            unread = self._transfer("read", start, [rows[i].data for i in group])
            for position, i in enumerate(group):
                if position in unread or not self._fits(frames[i], rows[i], sums[i]):
                    self._drop(frames[i], keys[i])
                    failed.append(i)
        return sorted(failed)

    def _announce(self, frames: Sequence[int]) -> None:
        """Lets the kernel fetch whole blocks, of which the layers are read one after the other."""
        for first, number in runs(frames):
            with suppress(OSError):  # the read itself will say it
                start, size = first * self._block, number * self._block
                os.posix_fadvise(self._files.data, start, size, os.POSIX_FADV_WILLNEED)

    def _fits(self, frame: int, row: Bytes, sums: tuple[int, int] | None) -> bool:
        if sums is not None and zlib.crc32(row.data, sums[0]) == sums[1]:
            return True
        self.faults.add("checksum", f"frame {frame} of {self._files.path}")
        return False

    def write(self, frames: Sequence[int], keys: Sequence[bytes], blocks: Tensor) -> list[int]:
        rows = rows_of(blocks)
        inside = [i for i, frame in enumerate(frames) if 0 <= frame < self.frames]
        written: set[int] = set()
        for group in self._groups(frames, inside, joined=True):
            try:
                self._index.clear([frames[i] for i in group])
            except OSError as error:
                self.faults.add("write", error, len(group))
                continue
            start = frames[group[0]] * self._block
            failed = self._transfer("write", start, [rows[i].data for i in group])
            stored = [i for position, i in enumerate(group) if position not in failed]
            written |= self._store(stored, frames, keys, rows)
        return [i for i in range(len(frames)) if i not in written]

    def _store(
        self, positions: Sequence[int], frames: Sequence[int], keys: Sequence[bytes], rows: Bytes
    ) -> set[int]:
        """Enters in the index what has been written; returns the positions of which that is done."""
        done: set[int] = set()
        for group in self._groups(frames, positions, joined=True):
            try:
                self._index.store(
                    frames[group[0]], [keys[i] for i in group], [self._sums(rows[i]) for i in group]
                )
            except OSError as error:
                self.faults.add("write", error, len(group))
            else:
                done |= set(group)
        return done

    def forget(self, frames: Iterable[int]) -> None:
        try:
            self._index.clear([frame for frame in frames if 0 <= frame < self.frames])
        except OSError as error:
            self.faults.add("forget", error)

    def measure(self) -> TierSpeed:
        """Of the disk, not of the page cache in front of it, in a part of the file that has no frames.

        Raises TierError where the disk fails.
        """
        try:
            speed = file_speed(self._files.data, self.frames * self._block, self._block)
        except OSError as error:
            raise TierError(
                f"--kv-disk {self._files.path.parent}: {error.strerror} while it was measured"
            ) from None
        return TierSpeed(self._block / speed.read, self._block / speed.write)

    def close(self) -> None:
        self._files.close()

    def _groups(
        self, frames: Sequence[int], positions: Sequence[int], *, joined: bool
    ) -> Iterator[list[int]]:
        """Positions in pieces, each for one system call: of consecutive frames, or one where not joined."""
        limit, group = self._joined if joined else 1, list[int]()
        for position in positions:
            if group and (len(group) == limit or frames[position] != frames[group[-1]] + 1):
                yield group
                group = []
            group.append(position)
        if group:
            yield group

    def _transfer(self, kind: Literal["read", "write"], offset: int, rows: Sequence[memoryview]) -> list[int]:
        """Reads or writes rows one after the other in the file; returns which of them failed.

        Where a call fails for several, each is tried by itself: one bad sector costs one block.
        """
        size, call = len(rows[0]), os.preadv if kind == "read" else os.pwritev
        try:
            done = call(self._files.data, rows, offset)
            error = f"{done} of {size} bytes"
        except OSError as raised:
            done, error = 0, str(raised)
        if done == size * len(rows):
            return []
        if len(rows) == 1:
            self.faults.add(kind, f"{error}, at {offset} of {self._files.path}")
            return [0]
        later = range(done // size, len(rows))
        return [i for i in later if self._transfer(kind, offset + i * size, rows[i : i + 1])]

    def _sums(self, row: Bytes) -> list[int]:
        """Of a whole block, the checksum at the end of each part."""
        parts = (row.data[start : start + self._part] for start in range(0, len(row), self._part))
        return list(accumulate(parts, lambda before, part: zlib.crc32(part, before), initial=0))[1:]

    def _drop(self, frame: int, key: bytes) -> None:
        """Of a frame that is damaged."""
        try:
            self._index.drop(frame, key)
        except OSError as error:
            self.faults.add("forget", error)
