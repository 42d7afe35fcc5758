"""What a running stack with a KV tier shows of it, on the simulated device."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from albireo.v1 import control_pb2 as control
from albireo.v1 import inference_pb2 as api
from tests.stack import Running, ask, running_stack

COST = """
name = "with a disk"
source = "test"
[t3]
fixed_ms = 3
prefill_token_us_over_t = 300
[t4]
fixed_ms = 0.3
[[tier]]
name = "disk"
gib = 0.02
read_gb_per_second = 0.03
write_gb_per_second = 0.03
"""
"""A block of the bundled model is read in about a millisecond, and computed in five."""
PROMPTS, TOKENS = 6, 300


def ask_all(running: Running) -> list[int]:
    """Prompts in turn, more than the device's memory has room for. Returns how much was cached of each."""
    found = []
    for prompt in range(PROMPTS):
        ids = [10 + (7919 * prompt + 31 * position) % 200 for position in range(TOKENS)]
        sampling = api.SamplingOptions(max_tokens=8, ignore_eos=True)
        answer = ask(running, api.GenerateRequest(token_ids=api.TokenIds(ids=ids), sampling=sampling))
        found.append(answer.finished.usage.cached_prompt_tokens)
    return found


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Where all prompts have been asked once, and lie in the tier."""
    directory = tmp_path_factory.mktemp("tiers")
    (directory / "cost.toml").write_text(COST)
    cost = str(directory / "cost.toml")
    with running_stack(directory / "stack", device="sim", cost_model=cost, kv_memory="1MiB") as running:
        assert ask_all(running) == [0] * PROMPTS
        running.wait_idle()
        yield running


def albireo(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "albireo.cli", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)


def test_fetched_tokens_count_as_cached_and_waits_are_counted(stack: Running) -> None:
    before = stack.load().groups[0].tiers[0]
    assert ask_all(stack) == [TOKENS // 16 * 16] * PROMPTS
    tier = stack.wait_idle().groups[0].tiers[0]
    assert tier.prefix_hit_tokens - before.prefix_hit_tokens == PROMPTS * (TOKENS // 16 * 16)
    assert (tier.frames_lost, tier.fetches_failed) == (0, 0)
    stats = stack.control.GetStepStats(control.GetStepStatsRequest(), timeout=5)
    waits = next(found for found in stats.histograms if found.name == "kv_wait")
    assert sum(waits.counts) > 0
    assert waits.sum > 0


def test_top_and_trace_show_the_tier(stack: Running, tmp_path: Path) -> None:
    output, target = tmp_path / "trace.json", stack.stack.target
    with ThreadPoolExecutor() as pool:
        top = pool.submit(albireo, "top", "--once", "--interval", "2", "--target", target)
        trace = pool.submit(albireo, "trace", str(output), "--seconds", "2.5", "--target", target)
        while not (top.done() and trace.done()):
            ask_all(stack)
    text = " ".join(top.result().stdout.replace("│", " ").split())
    assert "KV tier frames used fetched/s spilled/s hit tokens waits" in text
    assert re.search(r"g0 disk \d+ / 655 [1-9]\d* \d+ \d+ \d+\.\d%", text), text
    events = json.loads(output.read_text())["traceEvents"]
    lanes = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    fetches = [e for e in events if e.get("cat") == "simulated fetch"]
    assert {lanes[e["pid"], e["tid"]] for e in fetches} == {"fetches from disk"}
    assert all(e["args"]["bytes"] > 0 for e in fetches)
    waits = [e for e in events if e.get("cat") == "simulated wait for KV"]
    assert waits
    assert all(e["dur"] < 200e3 for e in waits)
