"""Contexts of four times the device's KV memory bring the tokens that they bring with enough of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from albireo.v1 import inference_pb2 as api
from tests.stack import Running, ask, request, running_stack

LONG = "The river is long and the road is wide. " * 45


def conversation(name: str, *, temperature: float) -> api.GenerateRequest:
    text = f"My name is {name}. " + LONG
    return request(text, max_tokens=48, ignore_eos=True, temperature=temperature, seed=7)


def tokens(running: Running) -> list[list[int]]:
    """Of two long requests that run together, greedy and seeded, and of a short one."""
    requests = [
        conversation("Anna", temperature=0.0),
        conversation("Bert", temperature=1.2),
        request("A short one.", max_tokens=120, ignore_eos=True),
    ]
    with ThreadPoolExecutor() as pool:
        return [answer.ids for answer in pool.map(lambda one: ask(running, one, timeout=120), requests)]


@pytest.mark.parametrize("tp", [1, 2])
def test_a_context_past_the_devices_memory(tmp_path: Path, tp: int) -> None:
    with running_stack(tmp_path / "large", kv_memory="16MiB", tp=tp) as running:
        truth = tokens(running)
    memory = f"{512 // tp}KiB"  # of each rank: 16 blocks, a quarter of the model's context
    disk, size = tmp_path / "kv", f"{8 // tp}MiB"
    with running_stack(
        tmp_path / "small", kv_memory=memory, tp=tp, kv_disk=disk, kv_disk_size=size
    ) as running:
        assert tokens(running) == truth
        load = running.wait_idle()
        assert list(load.integrity_violations) == []
