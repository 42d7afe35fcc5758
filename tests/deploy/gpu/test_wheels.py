"""What is carried to a GPU machine: the script lists it, and refuses more than fits."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "deploy" / "gpu" / "wheels.sh"
PIP = """#!/bin/sh
while [ "$1" != --dest ]; do shift; done
mkdir -p "$2"
truncate -s 1M "$2/small-1-py3-none-any.whl"
truncate -s {large}M "$2/large-2-py3-none-any.whl"
"""
"""Downloads two wheels."""


@pytest.mark.parametrize("large", [63, 64])
def test_the_wheels_are_listed_and_at_most_64_mib(tmp_path: Path, large: int) -> None:
    python = tmp_path / "python"
    python.write_text(PIP.format(large=large), encoding="utf-8")
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python)}
    command = ["sh", str(SCRIPT), str(tmp_path / "wheels")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    listed = [line.split() for line in done.stdout.splitlines()]
    assert listed[:2] == [
        [str(large << 20), "large-2-py3-none-any.whl"],
        [str(1 << 20), "small-1-py3-none-any.whl"],
    ]
    assert done.stdout.endswith(f"2 wheels, {large + 1 << 20} bytes, of at most {64 << 20}\n")
    assert done.returncode == (large == 64), done.stderr
