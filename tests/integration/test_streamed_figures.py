"""What a running stack shows of a context past the device's memory, on the simulated device."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from albireo.v1 import inference_pb2 as api
from tests.integration.test_kv_tier_figures import COST, albireo
from tests.stack import Answer, Running, ask, running_stack

BLOCKS, BLOCK_SECONDS = 16, 1.09e-3  # of the device; to read one of 32 KiB at 0.03 GB/s
PROMPT, OUTPUTS = 4 * BLOCKS * 16, 20


def ask_long(running: Running, *, first: int) -> Answer:
    """A prompt that begins with the token ``first``."""
    ids = [first, *(10 + 31 * position % 200 for position in range(PROMPT - 1))]
    sampling = api.SamplingOptions(max_tokens=OUTPUTS, ignore_eos=True)
    return ask(running, api.GenerateRequest(token_ids=api.TokenIds(ids=ids), sampling=sampling), timeout=60)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("streamed")
    (directory / "cost.toml").write_text(COST)
    memory, cost = f"{BLOCKS * 16}KiB", str(directory / "cost.toml")
    with running_stack(directory / "stack", device="sim", cost_model=cost, kv_memory=memory) as running:
        yield running


def test_its_pace_is_in_its_usage_and_is_that_of_the_tier(stack: Running) -> None:
    [group] = stack.load().groups
    assert group.blocks_total == BLOCKS
    usage = ask_long(stack, first=1).finished.usage
    assert (usage.prompt_tokens, usage.streamed_tokens) == (PROMPT, OUTPUTS)
    streamed = PROMPT // 16 - BLOCKS // 2  # blocks, at least
    assert usage.streamed_token_seconds > 0.9 * streamed * BLOCK_SECONDS
    load = stack.wait_idle()
    assert list(load.integrity_violations) == []
    assert (load.groups[0].streamed, load.groups[0].streamed_blocks) == (0, 0)


def test_its_next_turn_is_found_in_the_tier(stack: Running) -> None:
    found = [ask_long(stack, first=2).finished.usage.cached_prompt_tokens for _ in range(2)]
    assert found[0] == 0
    assert found[1] > PROMPT // 2
    assert stack.wait_idle().groups[0].tiers[0].prefix_hit_tokens >= found[1]


@pytest.mark.slow
def test_top_and_trace_show_what_its_layers_read(
    stack: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    output, target = tmp_path / "trace.json", stack.stack.target
    with ThreadPoolExecutor() as pool:
        top = pool.submit(albireo, "top", "--once", "--interval", "2", "--target", target)
        trace = pool.submit(albireo, "trace", str(output), "--seconds", "2.5", "--target", target)
        first = 3
        while not (top.done() and trace.done()):
            ask_long(stack, first=first)
            first += 1
    text = " ".join(top.result().stdout.replace("│", " ").split())
    assert re.search(r"g0 disk \d+ / 655 \d+ \d+ [1-9]\d* MB/s for [01] \d+", text), text
    events = json.loads(output.read_text())["traceEvents"]
    lanes = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    reads = [e for e in events if e.get("cat") == "simulated stream"]
    assert reads
    assert {lanes[e["pid"], e["tid"]] for e in reads} == {"streamed from disk"}
    assert all(e["args"]["bytes"] > 0 for e in reads)
