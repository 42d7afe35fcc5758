"""The tests that need a GPU, as a part of a session: how many passed, and which did not."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

PLUGINS = ("--disable-plugin-autoload", "-p", "asyncio", "-p", "timeout")
"""Of pytest, and no others: the Python that has torch may have some, whose warnings would be errors."""
ARGUMENTS = ("-m", "pytest", *PLUGINS, "-m", "gpu", "--ignore", "tests/deploy", "-vv", "--tb", "short")
"""As ``make test-gpu``, with a line for each test: so a run that is cut off says how far it came."""
LINE = re.compile(r"^(tests/\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED)", re.MULTILINE)


def counts(result: Path, output: str) -> dict[str, Any]:
    """From pytest's output; it writes no result. Raises ValueError where no test has run."""
    outcomes = dict(LINE.findall(output))
    if not outcomes:
        raise ValueError("no test has run")
    number = Counter(outcomes.values())
    return {
        **{outcome.lower(): number[outcome] for outcome in ("PASSED", "FAILED", "ERROR", "SKIPPED")},
        "not_passed": [name for name, outcome in outcomes.items() if outcome in ("FAILED", "ERROR")],
    }
