"""`albireo bench overhead` and `albireo trace`, on the simulated device."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from albireo.models import TINY
from albireo.v1 import control_pb2 as control
from albireo.v1 import inference_pb2 as api
from tests.stack import request, running_stack

COST = 'name = "quick"\nsource = "test"\n[t3]\nfixed_ms = {}\n[t4]\nfixed_ms = 0.5\n'
T3_SECONDS = 0.016
"""Much longer than the time for which a process waits for a core while other tests run."""


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    path = tmp_path / "quick.toml"
    path.write_text(COST.format(4.0))
    return path


def read(call: Iterator[api.GenerateEvent]) -> None:
    """Until it is cancelled."""
    with contextlib.suppress(grpc.RpcError):
        for _ in call:
            pass


def albireo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "albireo.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.slow
def test_the_overhead_of_both_modes_is_reported(tmp_path: Path) -> None:
    cost, chart = tmp_path / "cost.toml", tmp_path / "chart.png"
    cost.write_text(COST.format(T3_SECONDS * 1e3))
    options = ["--cost-model", str(cost), "--batch", "8", "--outputs", "100", "--model", str(TINY)]
    done = albireo("bench", "overhead", *options, "--json", "-", "--chart", str(chart))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "simulated" in found["setup"]
    assert chart.read_bytes().startswith(b"\x89PNG")
    for mode in ("synchronous", "overlapped"):
        summary = found["modes"][mode]
        assert summary["simulated"]
        assert summary["rows"] == 8
        assert summary["t3"]["median"] == pytest.approx(T3_SECONDS, rel=0.5)
        assert summary["period"]["median"] > summary["t3"]["median"] + summary["t4"]["median"]
    # In turn, the result must be written and the plan fetched between two steps.
    assert (
        found["modes"]["synchronous"]["visible"]["median"] > found["modes"]["overlapped"]["visible"]["median"]
    )


@pytest.mark.slow
def test_a_running_stack_can_be_traced(tmp_path: Path, quick: Path) -> None:
    with running_stack(tmp_path / "stack", device="sim", cost_model=str(quick)) as running:
        call = running.inference.Generate(
            request("Tell me a story.", max_tokens=800, ignore_eos=True), timeout=60
        )
        assert next(call).accepted.simulated
        reader = threading.Thread(target=read, args=(call,))
        reader.start()
        output, picture = tmp_path / "trace.json", tmp_path / "trace.png"
        target = running.stack.target
        done = albireo("trace", str(output), "--target", target, "--seconds", "1", "--picture", str(picture))
        assert done.returncode == 0, done.stderr
        stats = running.control.GetStepStats(control.GetStepStatsRequest(), timeout=5)
        call.cancel()
        reader.join(timeout=10)
        idle = albireo("trace", str(output), "--target", target, "--seconds", "0.3")
    names = {event["cat"] for event in json.loads(output.read_text())["traceEvents"] if event["ph"] == "X"}
    assert {"plan", "input", "simulated forward", "output", "hand out"} <= names
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert stats.simulated
    assert sum(next(h for h in stats.histograms if h.name == "t3").counts) > 50
    assert idle.returncode == 1
    assert "load" in idle.stderr
