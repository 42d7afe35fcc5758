"""How `make test` divides the tests among processes (pytest-xdist), each with its own Redis and ports."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

SHARED = {"tp2": ("tp2: ", "unharmed: "), "cases": ("cases: dict[str, Case]",)}
"""Fixtures of a session that take seconds to make, and how a file says that it uses one."""


class FilesTogether(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """All tests of a file run in one process, and so do all files that use one of ``SHARED``.

    A group takes its turn where its first test has it in the collection (``--no-loadscope-reorder``). The
    option ``--dist loadgroup`` of pytest-xdist 3.8 does not find its groups in pytest 9.2's ids of tests.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_of(self.config.rootpath / nodeid.split("::")[0])


@cache
def group_of(file: Path) -> str:
    """The fixture that a file shares with others, or else the file."""
    text = file.read_text(encoding="utf-8")
    return next((name for name, uses in SHARED.items() if any(use in text for use in uses)), str(file))
