"""How a group ends: the command of the compose stack, with other processes as its ranks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from albireo.local.ports import free_port
from tests.deploy.launch import RANK

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
TORCHRUN = shutil.which("torchrun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
COMMAND: list[str] = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text(encoding="utf-8"))["services"][
    "worker"
]["command"]

RANKS = """
import os, signal, sys, time
from pathlib import Path

stopped = Path(sys.argv[1]) / "stopped"
if os.environ["RANK"] == "0":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    stopped.touch()
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(60)
while not stopped.exists():
    time.sleep(0.01)
print("ended", time.monotonic(), flush=True)
sys.exit(1)
"""
"""Rank 0 is stopped; then rank 1 ends, as one does whose group was closed."""


def command(rank: list[str]) -> list[str]:
    """The stack's command for two ranks, with ``rank`` as what each runs."""
    assert COMMAND[0] == "torchrun"
    assert COMMAND[-len(RANK) :] == RANK
    parts = [
        part.replace("${STACK_TP:-2}", "2").replace("29500", str(free_port("127.0.0.1"))) for part in COMMAND
    ]
    return [str(TORCHRUN), *parts[1 : -len(RANK)], *rank]


@pytest.mark.skipif(TORCHRUN is None, reason="torchrun comes with torch")
def test_a_group_of_which_one_rank_ended_ends_at_once_although_another_is_stopped(tmp_path: Path) -> None:
    started = command([sys.executable, "-c", RANKS, str(tmp_path)])
    done = subprocess.run(started, capture_output=True, text=True, timeout=60, check=False)
    ended = float(done.stdout.split()[1])
    assert done.returncode == 1, done.stderr
    assert time.monotonic() - ended < 8  # torchrun alone takes 30 s
