"""Imports go one way: tiers never import each other, and the scheduler's core is pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TIERS = {"gateway", "scheduler_svc", "worker_svc"}
# Of what all share, the command line starts the tiers, the planner simulates them, and the doctor examines
# what they will read.
MAY_IMPORT_TIERS = {ROOT / "albireo" / folder for folder in ("cli", "planning", "tools/doctor")}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", [*sorted(TIERS), "albireo"])
def test_no_tier_imports_another(package: str) -> None:
    files = [p for p in (ROOT / package).rglob("*.py") if not MAY_IMPORT_TIERS & set(p.parents)]
    assert files
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in imported(path)
        if name.split(".")[0] in TIERS - {package}
    }
    assert not wrong


def test_the_schedulers_core_imports_plain_data_only() -> None:
    allowed = {"__future__", "albireo.contract.plan", "albireo.contract.tiers", "array", "collections"}
    allowed |= {
        "collections.abc",
        "dataclasses",
        "enum",
        "hashlib",
        "heapq",
        "itertools",
        "operator",
        "typing",
    }
    files = list((ROOT / "scheduler_svc" / "core").glob("*.py"))
    assert files
    found = {name for path in files for name in imported(path) if not name.startswith("scheduler_svc.core")}
    # Names that are imported from an allowed module follow it in the list.
    assert {name for name in found if name.rpartition(".")[0] not in allowed} <= allowed
