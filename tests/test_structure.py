"""The tree: short files and functions, tests where their modules are, nothing shared that one tier uses."""

from __future__ import annotations

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("albireo", "bench", "gateway", "scheduler_svc", "worker_svc")
TIERS = {"gateway", "scheduler_svc", "worker_svc"}
GENERATED = ROOT / "albireo" / "v1"
MAX_FILE_LINES = 299
MAX_FUNCTION_LINES = 50
# Tests of one kind for the whole package, and not of one of its folders.
KINDS = {Path("worker_svc/cuda"), Path("worker_svc/simulated_cuda")}


def sources(*folders: str) -> list[Path]:
    """Python files by hand below the folders of the root."""
    found = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return [path for path in found if GENERATED not in path.parents]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_no_file_is_long() -> None:
    lines = {
        path: path.read_text(encoding="utf-8").count("\n") for path in sources(*PACKAGES, "deploy", "tests")
    }
    long = {name_of(path): count for path, count in lines.items() if count > MAX_FILE_LINES}
    assert not long


def test_no_function_is_long() -> None:
    """A test may tell a long story; what is run may not."""
    long = {
        f"{name_of(path)}.{node.name}": node.end_lineno - node.lineno + 1
        for path in sources(*PACKAGES, "deploy")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    }
    assert not long


def imported(path: Path) -> set[str]:
    """Modules that a file imports; of ``from a import b`` both ``a`` and ``a.b``, which may be one."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_no_module_that_all_share_is_used_by_one_tier_alone() -> None:
    users: dict[str, set[str]] = defaultdict(set)
    for path in sources(*PACKAGES):
        for name in imported(path) - {name_of(path)}:
            users[name].add(path.relative_to(ROOT).parts[0])
    shared = {name_of(path) for path in sources("albireo")}
    wrong = {name: users[name] for name in shared if len(users[name]) == 1 and users[name] <= TIERS}
    assert not wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_tests_mirror_the_tree(package: str) -> None:
    """A folder of tests is a folder of the package."""
    folders = {path.relative_to(ROOT).parent for path in sources(package)}
    mirrors = {path.relative_to(ROOT / "tests").parent for path in sources(f"tests/{package}")}
    assert mirrors - KINDS <= folders
