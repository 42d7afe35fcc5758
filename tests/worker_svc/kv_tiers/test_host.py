"""The tier in host memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from tests.worker_svc.kv_tiers.blocks import LAYOUT, write
from worker_svc.kv_tiers.errors import TierError
from worker_svc.kv_tiers.host import HostTier, host_storage


def test_as_many_frames_as_the_memory_holds() -> None:
    assert len(host_storage(5 * LAYOUT.block_bytes - 1, LAYOUT, pinned=False)) == 4


@pytest.mark.parametrize("memory", [-1, 0, LAYOUT.block_bytes - 1])
def test_no_frame_at_all_is_an_error_of_the_option(memory: int) -> None:
    with pytest.raises(TierError, match=f"--kv-host-memory: .* takes {LAYOUT.block_bytes} bytes"):
        host_storage(memory, LAYOUT, pinned=False)


def test_more_than_the_machine_has_is_an_error_of_the_option() -> None:
    huge = replace(LAYOUT, layers=1 << 20)
    with pytest.raises(TierError, match="--kv-host-memory: this machine does not give"):
        host_storage(1 << 60, huge, pinned=False)


def test_missing_says_what_a_read_would_not_find(host: HostTier) -> None:
    write(host, [1, 2], [1, 2])
    assert host.missing([2, 1, 0], [b"", (1).to_bytes(16, "big"), b""]) == [0, 2]


def test_a_frame_that_is_overwritten_while_it_is_read_holds_nothing(
    host: HostTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the write has ended or not: what was read may be a part of each."""
    write(host, [1, 2], [1, 2])
    rows, written = host._rows, list[int]()

    class Rows:
        shape = rows.shape

        def __getitem__(self, index: tuple[int, slice]) -> object:
            found = rows[index].copy()
            monkeypatch.setattr(host, "_rows", rows)
            write(host, written, [9])
            return found

    monkeypatch.setattr(host, "_rows", Rows())
    out = torch.empty(1, *LAYOUT.block_shape, dtype=LAYOUT.dtype)
    written.append(2)
    layers = range(LAYOUT.layers)
    assert host.read([1], [(1).to_bytes(16, "big")], layers, out) == []
    monkeypatch.setattr(host, "_rows", Rows())
    written[0] = 1
    assert host.read([1], [(1).to_bytes(16, "big")], layers, out) == [0]


def test_a_frame_that_is_written_after_the_read_began_has_not_been_read(
    host: HostTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = host.missing

    def then_written(frames: Sequence[int], keys: Sequence[bytes]) -> list[int]:
        found = missing(frames, keys)
        write(host, [1], [1])
        return found

    monkeypatch.setattr(host, "missing", then_written)
    out = torch.empty(1, *LAYOUT.block_shape, dtype=LAYOUT.dtype)
    assert host.read([1], [(1).to_bytes(16, "big")], range(LAYOUT.layers), out) == [0]
