"""A part of a session: whatever its process does, an outcome comes of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from bench.gpu_session.part import RESULT, Outcome, Part, run_part

WRITES = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text('{\"steps\": 3}');"
STARTS = "import subprocess, time; print(subprocess.Popen(['sleep', '100']).pid, flush=True);"


def run(directory: Path, code: str, seconds: float = 60, **options: Any) -> Outcome:
    return run_part(Part("one", ("-c", code, RESULT), seconds, **options), directory)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_figures_of_a_part_that_ends(tmp_path: Path) -> None:
    found = run(tmp_path, WRITES)
    assert (found.status, found.figures, found.why) == ("ok", {"steps": 3}, "")
    assert 0 < found.seconds < found.limit == 60


def test_a_part_that_raises_is_reported_with_what_it_had_and_the_next_one_runs(tmp_path: Path) -> None:
    found = run(tmp_path, f"{WRITES} raise ValueError('no such kernel')")
    assert (found.status, found.figures) == ("failed", {"steps": 3})
    assert found.why.endswith("ValueError: no such kernel")
    assert run(tmp_path, WRITES).status == "ok"


def test_a_part_past_its_limit_is_ended_with_what_it_has_started(tmp_path: Path) -> None:
    began = time.monotonic()
    found = run(tmp_path, f"{WRITES} {STARTS} time.sleep(100)", seconds=2)
    assert time.monotonic() - began < 60
    assert (found.status, found.figures) == ("timed out", {"steps": 3})
    child = int(found.why.splitlines()[0])
    while runs(child):  # it has been killed, and is about to end
        time.sleep(0.01)


def test_a_part_without_a_result_has_failed(tmp_path: Path) -> None:
    found = run(tmp_path, "print('did nothing')")
    assert found.status == "failed"
    assert "did nothing\nno result:" in found.why


def test_a_skipped_part_says_why(tmp_path: Path) -> None:
    found = run(tmp_path, WRITES, skipped="there is no GPU")
    assert (found.status, found.why, found.figures) == ("skipped", "there is no GPU", {})


def test_a_command_is_shown_without_the_folders_of_the_machine(tmp_path: Path) -> None:
    here = Path.cwd()
    arguments = ("-m", "module", str(tmp_path / "shape"), str(here / "model"))
    part = Part("one", arguments, 1, skipped="so", environment={"ONE": "1"})
    assert run_part(part, tmp_path).command == "ONE=1 python -m module SCRATCH/shape model"


def test_a_part_has_an_environment_of_its_own(tmp_path: Path) -> None:
    found = run(tmp_path, "import os; raise SystemExit(os.environ['WHAT'])", environment={"WHAT": "that"})
    assert found.why == "that"
