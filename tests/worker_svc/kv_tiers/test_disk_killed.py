"""kill -9 of a process in the middle of its writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.worker_svc.kv_tiers import killed_writer

ROUNDS = 20


def test_what_a_killed_process_is_said_to_have_written_is_right(tmp_path: Path) -> None:
    """Its files are free at once, and a frame that was under way holds nothing: not the block before either,
    which the index gives up first."""
    run = subprocess.run(
        [sys.executable, "-m", killed_writer.__name__, tmp_path / "kv", str(ROUNDS)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    rounds = [tuple(map(int, line.split())) for line in run.stdout.splitlines()]
    assert len(rounds) == ROUNDS
    assert all(held == right for held, right in rounds)
    assert max(held for held, _ in rounds) > killed_writer.FRAMES // 2  # the writers did write
    assert min(held for held, _ in rounds[1:]) < killed_writer.FRAMES  # and some were killed in the middle
    assert [path.name for path in (tmp_path / "kv").glob("*.data")] == ["rank0-0.data"]
