"""A session on the CPU: a page with figures and shares, also of what failed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from albireo.planning.calibration import limits
from bench.gpu_session import __main__ as session
from bench.gpu_session.model import Loads, Measurement
from bench.gpu_session.page import page
from bench.gpu_session.part import Part
from bench.gpu_session.parts import all_parts
from bench.gpu_session.shapes import write_shape

LOADS = Loads(rows=(1, 3), prompt=20, steps=6, prefill=40, mixed=(2, 24), rounds=2)


@pytest.fixture
def measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measurement:
    """Of the bundled model's shape; small arrays measure the limits."""
    monkeypatch.setattr(limits, "READ_BYTES", {"cpu": 1 << 22})
    monkeypatch.setattr(limits, "SIDE", {"cpu": 128})
    torch.set_num_threads(1)
    write_shape("tiny", tmp_path / "shape")
    return Measurement(tmp_path / "shape", torch.device("cpu"), LOADS)


def test_steps_are_compared_with_their_limit(measurement: Measurement) -> None:
    measured = (measurement.decode(3), 2 * LOADS.steps), (measurement.prefill(), 6), (measurement.mixed(), 6)
    for found, steps in measured:
        assert found["steps"] == steps
        assert found["limit_ms"] > 0
        assert found["share_of_limit"] == pytest.approx(found["limit_ms"] / found["forward_ms"])
        assert 0 < found["forward_ms"] + found["sampling_ms"] <= found["step_p99_ms"]
    assert "watts" not in measurement.decode(1)  # a CPU reports none


def part(name: str, status: str, figures: dict[str, Any], why: str = "") -> dict[str, Any]:
    found = {"name": name, "command": "python -c pass", "status": status, "seconds": 1.0, "limit": 2.0}
    return {**found, "figures": figures, "why": why}


def test_the_page_shows_what_was_measured_before_a_failure(measurement: Measurement) -> None:
    decode = {**measurement.decode(1), "watts": 400.0, "joules_per_output_token": 0.25}
    speeds = {"read": 3e12, "copy": 4e12, "operations": 7e14}
    mixed = {**measurement.mixed(), "device_ahead_ms": 0.25, "saving_ms": 0.125}
    figures = {
        "limits": speeds,
        "weight_gb": 16.1,
        "dtype": "bfloat16",
        "kernels": "PlainKernels, 0 CUDA graphs",
        "decode": [decode],
        "prefill": measurement.prefill(),
        "mixed": mixed,
    }
    text = page(
        {
            "date": "2026-01-01",
            "command": "python -m bench.gpu_session",
            "commit": "abc",
            "device": "cuda",
            "shape": "llama-3.1-8b",
            "quick": False,
            "parts": [
                part("environment", "failed", {}, "ImportError: no driver"),
                part("model", "timed out", figures, "the last line"),
                part("vllm", "skipped", {}, "it is not installed"),
            ],
        }
    )
    assert "This part failed. The end of its output:\n\n```\nImportError: no driver\n```" in text
    assert "did not end within 2 s. The end of its output:\n\n```\nthe last line\n```" in text
    assert "3,000 GB/s read by a sum, 4,000 GB/s read and written by a copy, 700.0 TFLOP/s" in text
    row = next(line for line in text.splitlines() if line.startswith("| 1 | "))
    assert f"| {decode['limit_ms']:.3f} | memory | {decode['share_of_limit']:.1%} |" in row
    assert row.endswith("| 400 | 0.250 |")
    assert f"| 2 | 24 | {mixed['step_ms']:.3f} |" in text
    launches = [line for line in text.splitlines() if "launching takes" in line]
    assert launches[0].startswith("- 0 decoding rows and 40 tokens of a prompt: launching takes ")
    assert launches[0].endswith("what CUDA graphs could save is not known here.")
    assert f"launching takes {mixed['launch_ms']:.3f} ms, the device " in launches[1]
    saved = "0.250 ms where it begins when all is launched: CUDA graphs could save at most 0.125 ms."
    assert launches[1].endswith(saved)
    assert "Not measured: it is not installed." in text
    assert "## Sampling" not in text


def test_a_session_goes_on_after_a_part_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = all_parts("cpu", "tiny", tmp_path, quick=True)
    broken = Part("sampling", ("-c", "raise SystemExit('no such kernel')"), 60)
    listed = [broken, *(part for part in real if part.name in ("environment", "tests"))]
    monkeypatch.setattr(session, "all_parts", lambda *arguments, **options: listed)
    app = typer.Typer()
    app.command()(session.main)
    done = CliRunner().invoke(app, ["--device", "cpu", "--quick", "--shape", "tiny", "--out", str(tmp_path)])
    assert done.exit_code == 1, done.output
    found = json.loads((tmp_path / "gpu_session.json").read_text(encoding="utf-8"))
    outcomes = {part["name"]: part["status"] for part in found["parts"]}
    assert outcomes == {"sampling": "failed", "environment": "ok", "tests": "skipped"}
    text = (tmp_path / "gpu_session.md").read_text(encoding="utf-8")
    assert "no such kernel" in text
    assert re.search(r"\| torch \| \d", text)


def test_all_limits_of_a_session_on_a_gpu_are_below_8_minutes(tmp_path: Path) -> None:
    parts = all_parts("cuda", "llama-3.1-8b", tmp_path, quick=False)
    assert sum(part.seconds for part in parts if part.name != "vllm") <= 480
