"""What a session says of the tests that need a GPU, from the lines that pytest prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.gpu_session.gpu_tests import ARGUMENTS, counts

MAKEFILE = Path(__file__).resolve().parents[3] / "Makefile"

OUTPUT = """\
tests/worker_svc/cuda/test_gpu_kv.py::test_random_transfers_are_exact[rank 0] PASSED [  1%]
tests/worker_svc/cuda/test_gpu_kv.py::test_random_transfers_are_exact[another rank] FAILED [  2%]
tests/worker_svc/cuda/test_gpu_reader.py::test_power PASSED [  3%]
tests/worker_svc/cuda/test_gpu_reader.py::test_power ERROR [  3%]
tests/worker_svc/sampling/test_controls.py::test_on_cuda SKIPPED (no device) [  4%]
tests/worker_svc/cuda/test_gpu_graphs.py::test_that_was_cut_off """


def test_they_are_those_of_make_test_gpu() -> None:
    command, _, lines = " ".join(ARGUMENTS).partition(" -vv")
    assert lines
    assert f"\t$(BIN)/python {command} $(ARGS)\n" in MAKEFILE.read_text(encoding="utf-8")


def test_foreign_plugins_are_not_loaded_and_without_a_card_no_test_passes(tmp_path: Path) -> None:
    """The environment on a GPU machine sees the packages of the Python that has torch."""
    (tmp_path / "foreign.py").write_text("raise SystemExit('loaded')", encoding="utf-8")
    (tmp_path / "foreign-1.dist-info").mkdir()
    (tmp_path / "foreign-1.dist-info" / "entry_points.txt").write_text("[pytest11]\nforeign = foreign\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}

    def output_of(*arguments: str) -> str:
        command = [sys.executable, *arguments, "tests/worker_svc/cuda/test_gpu_reader.py"]
        done = subprocess.run(
            command, cwd=MAKEFILE.parent, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        return done.stdout + done.stderr

    output = output_of(*ARGUMENTS)
    assert "Failed: torch finds no CUDA device" in output
    found = counts(Path("none"), output)
    assert (found["passed"], found["error"]) == (0, 1)
    assert output_of("-m", "pytest", "-m", "gpu") == "loaded\n"


def test_every_test_counts_once() -> None:
    found = counts(Path("none"), OUTPUT)
    assert {name: found[name] for name in ("passed", "failed", "error", "skipped")} == {
        "passed": 1,
        "failed": 1,
        "error": 1,
        "skipped": 1,
    }
    assert found["not_passed"] == [
        "tests/worker_svc/cuda/test_gpu_kv.py::test_random_transfers_are_exact[another rank]",
        "tests/worker_svc/cuda/test_gpu_reader.py::test_power",
    ]


def test_no_test_at_all_is_no_success() -> None:
    with pytest.raises(ValueError, match="no test has run"):
        counts(Path("none"), "no tests ran in 0.01s")
