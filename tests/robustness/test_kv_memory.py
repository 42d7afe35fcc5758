"""Memory for KV blocks: granted in sizes people write, measured where it is not, and never more than fits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from albireo.checkpoint.files import CheckpointError
from albireo.contract.plan import Plan
from albireo.local.settings import StackSettings
from albireo.models import TINY
from albireo.runtime.kv_memory import KvMemory
from tests.worker_svc.oracle import CPU
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.cost.load import load_cost_model
from worker_svc.main import SIMULATED_KV_BYTES, _simulated_memory, _simulated_sizes
from worker_svc.model.config import ModelConfig
from worker_svc.model.kv_cache import allocate
from worker_svc.runner import model_runner
from worker_svc.runner.kv_sizing import CPU_SHARE, Sizing
from worker_svc.runner.main_memory import available_memory, cgroup_memory
from worker_svc.runner.model_runner import ModelRunner
from worker_svc.runner.profile_steps import STEP_TOKENS, profile_plans
from worker_svc.settings import WorkerSettings

BLOCK = 16 << 10  # 4 layers, keys and values, 16 tokens, 4 heads of 16 numbers, 2 bytes
COPIES = 1.5  # in addition to a block of 4 layers, two copies of one layer's share
SLOTS, LONGEST = 64, 1024
USEFUL = 2 * SLOTS * LONGEST // 16


def simulated(cost_model: str, kv_memory: str) -> int:
    """Bytes for KV on a simulated device."""
    options = {"model": TINY, "device": "sim", "kv_memory": kv_memory}
    settings = WorkerSettings.model_validate(options | {"max_seqs": SLOTS, "max_model_len": LONGEST})
    return _simulated_memory(settings, load_cost_model(cost_model, ModelConfig.from_dir(TINY), 1))


def tiny(kv_memory: KvMemory, local_ranks: int = 1) -> ModelRunner:
    return ModelRunner(
        TINY,
        TPGroup(),
        device=CPU,
        dtype=torch.bfloat16,
        kv_memory=kv_memory,
        max_seqs=SLOTS,
        max_model_len=8192,
        local_ranks=local_ranks,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8GiB", KvMemory(size=8 << 30)),
        ("1.5 GiB", KvMemory(size=3 << 29)),
        ("512MiB", KvMemory(size=512 << 20)),
        ("512M", KvMemory(size=512_000_000)),
        ("40%", KvMemory(share=0.4)),
        ("100%", KvMemory(share=1.0)),
        ("auto", KvMemory()),
        (" Auto ", KvMemory()),
    ],
)
def test_sizes_shares_and_auto(text: str, expected: KvMemory) -> None:
    assert KvMemory.parse(text) == expected


def test_a_tier_in_host_memory_can_be_left_out_and_a_disk_takes_a_size() -> None:
    assert KvMemory.parse_or_none("None") is None
    assert KvMemory.parse_or_none("8GiB") == KvMemory(size=8 << 30)
    assert KvMemory.parse_disk("2GiB") == 2 << 30
    assert KvMemory.parse_disk("auto") is None
    with pytest.raises(ValueError, match="neither a size"):
        KvMemory.parse_disk("40%")


@pytest.mark.parametrize(
    "text", ["", "much", "0", "-1GiB", "0%", "101%", "nan%", "x%", "8 parsecs", "1e999%"]
)
def test_a_value_that_is_no_size_and_no_share_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValidationError, match="kv_memory"):
        WorkerSettings.model_validate({"model": TINY, "kv_memory": text})


def test_auto_takes_a_share_of_what_is_free_and_no_more_than_is_useful(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert tiny(KvMemory()).shape.num_blocks == USEFUL
    free = 40 << 20
    monkeypatch.setattr(model_runner, "available_memory", lambda: free)
    expected = int(free * CPU_SHARE / COPIES) // BLOCK
    found = tiny(KvMemory())
    assert found.shape.num_blocks == expected < USEFUL
    assert found.kv_bytes == expected * BLOCK
    assert tiny(KvMemory(), local_ranks=2).shape.num_blocks == expected // 2
    assert tiny(KvMemory(share=0.9)).shape.num_blocks == int(free * 0.9 / COPIES) // BLOCK
    assert tiny(KvMemory(1 << 20)).shape.num_blocks == 64
    free = 1000
    with pytest.raises(CheckpointError, match="raise --kv-memory"):
        tiny(KvMemory())


@pytest.mark.parametrize("size", [1 << 50, 1 << 60])
def test_more_memory_than_there_is_is_refused(size: int) -> None:
    with pytest.raises(CheckpointError, match=f"--kv-memory asks for {size >> 20} MiB on each rank"):
        tiny(KvMemory(size))


def test_an_allocation_that_fails_all_the_same_says_what_to_do() -> None:
    with pytest.raises(CheckpointError, match="lower --kv-memory"):
        allocate(1 << 40, ModelConfig.from_dir(TINY), 1, torch.bfloat16, CPU)


def test_free_memory_is_that_of_machine_and_container(tmp_path: Path) -> None:
    """Version 2 and 1 of cgroups; files that are kept in memory and can go at once are no use of it."""
    found = available_memory()
    assert found is not None
    assert found > 0
    for folder, names in (
        (tmp_path / "two", ("memory.max", "memory.current", "inactive_file")),
        (
            tmp_path / "one",
            ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
        ),
    ):
        (folder / names[0]).parent.mkdir(parents=True)
        (folder / names[0]).write_text("1000\n")
        (folder / names[1]).write_text("900\n")
        assert cgroup_memory(folder) == 100
        (folder / names[0]).with_name("memory.stat").write_text(f"anon 5\n{names[2]} 600\n")
        assert cgroup_memory(folder) == 700


def test_a_simulated_device_has_no_memory_to_divide() -> None:
    assert simulated("paper-32b", "auto") == SIMULATED_KV_BYTES
    assert simulated("paper-32b", "1GiB") == simulated("h100", "1GiB") == 1 << 30
    with pytest.raises(ValueError, match="kv_memory: 40%: --device sim takes a size"):
        simulated("paper-32b", "40%")


def test_auto_on_a_described_device_is_what_its_slots_can_use() -> None:
    assert simulated("h100", "auto") == USEFUL * BLOCK


def profiled(monkeypatch: pytest.MonkeyPatch, free: int, longest: int) -> tuple[int, list[tuple[int, ...]]]:
    """On a CPU, with a GPU's memory made up, of which steps take 250 bytes: what they leave, and of each step
    the rows, those that sample, and the blocks of the longest context."""
    runner = tiny(KvMemory(1 << 20))
    rows: list[tuple[int, ...]] = []
    prepare = runner.prepare

    def seen(plan: Plan) -> object:
        batch = prepare(plan)
        forward = batch.host.forward
        blocks = [*(chunk.blocks.shape[0] for chunk in forward.chunks), 0]
        rows.append((len(forward.positions), len(batch.host.samples.slots), max(blocks)))
        return batch

    monkeypatch.setattr(runner, "prepare", seen)
    for name, value in {
        "reset_peak_memory_stats": None,
        "empty_cache": None,
        "memory_allocated": 100,
        "max_memory_allocated": 350,
        "mem_get_info": (free, 4 * free),
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    left, total = runner._free_on_gpu(Sizing(runner.config, 1, torch.bfloat16, SLOTS, longest))
    assert total == 4 * free
    return left, rows


def test_the_profile_runs_the_largest_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is as much as there was, less what steps took at their peak."""
    left, rows = profiled(monkeypatch, 1 << 30, LONGEST)
    assert left == (1 << 30) - 250
    assert rows == [(STEP_TOKENS, 16, LONGEST // 16), (SLOTS, SLOTS, 1), (SLOTS, SLOTS, 0)]


def test_the_profile_has_no_context_that_is_longer_than_all_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be streamed: the memory for a step that gathers it is not needed."""
    _, rows = profiled(monkeypatch, 40 * BLOCK, LONGEST)
    assert rows[0] == (STEP_TOKENS, 16, 40)


@pytest.mark.parametrize(("slots", "longest"), [(1, 2), (1, 100), (3, 513), (64, 16)])
def test_the_profile_fits_any_shape(slots: int, longest: int) -> None:
    runner = ModelRunner(
        TINY,
        TPGroup(),
        device=CPU,
        dtype=torch.float32,
        kv_memory=KvMemory(4 << 20),
        max_seqs=slots,
        max_model_len=longest,
    )
    for plan in profile_plans(slots, longest):
        assert len(runner.execute(runner.prepare(plan)).to_host().ids)


def test_a_gpu_keeps_what_its_share_leaves() -> None:
    sizing = Sizing(ModelConfig.from_dir(TINY), 1, torch.bfloat16, SLOTS, LONGEST)
    free, kept = 60 << 20, 8 << 20
    assert sizing.blocks(KvMemory(), free, 1.0, kept) == int((free - kept) / COPIES) // BLOCK
    assert sizing.blocks(KvMemory(), 80 << 30, 1.0, kept) == USEFUL
    with pytest.raises(CheckpointError, match=r"^0 bytes"):
        sizing.blocks(KvMemory(), kept, 1.0, 2 * kept)


FULL = """
import torch
from pathlib import Path
from worker_svc import main
from worker_svc.settings import WorkerSettings

def full(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\\nSee the manual")

main._runner = full
main.run(WorkerSettings(model=Path({model!r}), device="sim", redis_url="redis://127.0.0.1:1"))
"""


def test_a_device_without_memory_left_ends_a_rank_with_one_line() -> None:
    """What torch raises where weights or a step do not fit a GPU; in a process, as a rank takes signals."""
    command = [sys.executable, "-c", FULL.format(model=str(TINY))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == (
        "worker-0: the device has no memory left, lower --kv-memory: "
        "CUDA out of memory. Tried to allocate 2 GiB."
    )


@pytest.mark.parametrize(
    ("text", "sizes"), [("auto", {}), ("none", {"host": 0}), ("2GiB", {"host": 2 << 30})]
)
def test_a_simulated_host_tier_has_the_size_that_is_asked_for(text: str, sizes: dict[str, int]) -> None:
    options = {"model": TINY, "device": "sim", "kv_host_memory": text}
    assert _simulated_sizes(WorkerSettings.model_validate(options)) == sizes


def test_a_simulated_host_has_nothing_to_take_a_share_of() -> None:
    settings = WorkerSettings.model_validate({"model": TINY, "device": "sim", "kv_host_memory": "40%"})
    with pytest.raises(ValueError, match="kv_host_memory: 40%: --device sim takes a size"):
        _simulated_sizes(settings)


def test_a_disk_that_would_not_be_used_is_refused() -> None:
    settings = WorkerSettings.model_validate({"model": TINY, "device": "sim", "kv_disk": "/var/kv"})
    with pytest.raises(ValueError, match="kv_disk: /var/kv: --device sim has the tiers"):
        _simulated_sizes(settings)
    for of in (WorkerSettings, StackSettings):
        with pytest.raises(ValueError, match="kv_disk_size: give kv_disk too"):
            of.model_validate({"model": TINY, "kv_disk_size": "1GiB"})
