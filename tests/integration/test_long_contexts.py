"""Contexts of four times the device's KV memory bring the tokens that they bring with enough of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from albireo.v1 import inference_pb2 as api
from tests.integration.test_kv_tiers import damage
from tests.stack import Answer, Running, ask, request, running_stack

DEVICE_TOKENS = 256
LONG = "The river is long and the road is wide. " * 45


def conversation(name: str, *, temperature: float) -> api.GenerateRequest:
    text = f"My name is {name}. " + LONG
    return request(text, max_tokens=48, ignore_eos=True, temperature=temperature, seed=7)


def answers(running: Running) -> list[Answer]:
    """Of two long requests that run together, greedy and seeded, and of a short one."""
    requests = [
        conversation("Anna", temperature=0.0),
        conversation("Bert", temperature=1.2),
        request("A short one.", max_tokens=120, ignore_eos=True),
    ]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda one: ask(running, one, timeout=120), requests))


@pytest.mark.parametrize("tp", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_context_past_the_devices_memory(tmp_path: Path, tp: int) -> None:
    with running_stack(tmp_path / "large", kv_memory="16MiB", tp=tp) as running:
        truth = answers(running)
        assert all(answer.finished.usage.streamed_tokens == 0 for answer in truth)
    memory = f"{DEVICE_TOKENS * 2 // tp}KiB"  # of each rank
    disk, size = tmp_path / "kv", f"{8 // tp}MiB"
    with running_stack(
        tmp_path / "small", kv_memory=memory, tp=tp, kv_disk=disk, kv_disk_size=size
    ) as running:
        found = answers(running)
        assert [answer.ids for answer in found] == [answer.ids for answer in truth]
        usage = [answer.finished.usage for answer in found]
        assert [one.streamed_tokens for one in usage] == [48, 48, 0]
        assert all(one.streamed_token_seconds > 0 for one in usage[:2])
        assert all(one.prompt_tokens > 3.5 * DEVICE_TOKENS for one in usage[:2])
        load = running.wait_idle()
        assert list(load.integrity_violations) == []


@pytest.mark.slow
def test_a_long_context_comes_back_from_a_disk_also_where_it_is_damaged(tmp_path: Path) -> None:
    disk = tmp_path / "kv"
    with running_stack(tmp_path / "large", kv_memory="16MiB") as running:
        truth = ask(running, conversation("Anna", temperature=0.0)).ids
    with running_stack(
        tmp_path / "small", kv_memory=f"{DEVICE_TOKENS * 2}KiB", kv_disk=disk, kv_disk_size="8MiB"
    ) as running:
        assert ask(running, conversation("Anna", temperature=0.0)).ids == truth
        running.wait_idle()
        for damaged in (False, True):
            [name] = running.stack.group_names
            running.stack.remove_group(name)
            if damaged:
                [data] = disk.glob("*.data")
                damage(data)
            running.stack.add_group()
            answer = ask(running, conversation("Anna", temperature=0.0), timeout=90)
            assert answer.ids == truth
            usage = answer.finished.usage
            assert (usage.cached_prompt_tokens > 3 * DEVICE_TOKENS) != damaged
        assert list(running.wait_idle().integrity_violations) == []
