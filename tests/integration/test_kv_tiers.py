"""Conversations that come back from a disk: after others took their blocks, after a restart, and damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from albireo.v1 import control_pb2 as control
from albireo.v1 import inference_pb2 as api
from tests.stack import Running, ask, request, running_stack, wait_for

BLOCK_BYTES = 32 << 10
"""Of the bundled model in fp32."""


def conversation(name: str) -> api.GenerateRequest:
    text = f"My name is {name}. " + f"{name} has a cat, a dog and a house. " * 18
    return request(text, max_tokens=24, ignore_eos=True)


def tier(running: Running) -> control.TierLoad:
    [group] = running.load().groups
    [found] = group.tiers
    return found


def grows(running: Running, count: Callable[[control.TierLoad], int]) -> Callable[[], bool]:
    before = count(tier(running))
    return lambda: count(tier(running)) > before


def damage(data: Path) -> None:
    """Flips a bit of each frame."""
    content = bytearray(data.read_bytes())
    for first in range(0, len(content) - BLOCK_BYTES, BLOCK_BYTES):
        content[first + 5000] ^= 4
    data.write_bytes(content)


def test_a_conversation_comes_back_from_a_disk(tmp_path: Path) -> None:
    disk = tmp_path / "kv"
    with running_stack(tmp_path / "stack", kv_memory="3MiB", kv_disk=disk, kv_disk_size="32MiB") as running:
        truth = ask(running, conversation("Anna"))
        assert len(truth.ids) == 24
        for name in ("Bert", "Cora", "Dora", "Emil"):
            ask(running, conversation(name))
        running.wait_idle()
        fetched = grows(running, lambda found: found.blocks_fetched)
        assert ask(running, conversation("Anna")).ids == truth.ids
        wait_for(fetched, 10, "nothing was fetched")
        assert tier(running).fetches_failed == 0

        [name] = running.stack.group_names
        running.stack.remove_group(name)
        running.stack.add_group()
        again = ask(running, conversation("Anna"), timeout=90)
        assert again.ids == truth.ids
        wait_for(lambda: tier(running).blocks_fetched > 0, 10, "nothing was fetched after the restart")
        assert tier(running).fetches_failed == 0

        [name] = running.stack.group_names
        running.stack.remove_group(name)
        [data] = disk.glob("*.data")
        damage(data)
        name = running.stack.add_group()
        assert ask(running, conversation("Anna"), timeout=90).ids == truth.ids
        wait_for(lambda: tier(running).fetches_failed > 0, 10, "the damage was not seen")
        running.wait_idle()
        assert list(running.load().integrity_violations) == []
        log = (tmp_path / "stack" / "logs" / f"{name}-rank-0.log").read_text()
        assert log.count("checksum") == 1
