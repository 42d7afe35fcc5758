"""Every program of ``examples/`` runs against a real stack and prints what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack import Running

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ANSWERS = {
    "stream": r"82\n\d+ \+ \d+ tokens, FINISH_REASON_STOP\n$",
    "chat": r"(?s)82.*fox.*June.*\((?!0 )\d+ of \d+ prompt tokens were cached\)\n$",
    "many_at_once": r"(?s)31 \+ 32 = 63\n.*32 answers in \d+\.\d\d s\n$",
    "cancel": r"first \d+ tokens\ncancel .*: found = True\nFINISH_REASON_CANCELLED after \d+ tokens\n$",
    "logprobs": r"(?m)^'8' +\d+\.\d%   '.*%$",
}


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_an_example_runs_against_a_stack_and_prints_its_answer(unharmed: Running, name: str) -> None:
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), unharmed.stack.target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(ANSWERS[name], done.stdout), done.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_at_most_40_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40
