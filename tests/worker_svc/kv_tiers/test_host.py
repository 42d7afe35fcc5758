"""The tier in host memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

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
