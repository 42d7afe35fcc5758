"""Imports within the shared package go one way, in the order of the table in docs/architecture.md."""

from __future__ import annotations

from tests.test_imports import ROOT, imported

ORDER = ["cli", "planning", "tools", "local", "client", "virtual", "telemetry", "store", "runtime"]
ORDER += ["checkpoint", "contract", "v1", "models"]


def test_a_folder_imports_itself_and_those_after_it_only() -> None:
    package = ROOT / "albireo"
    assert {path.parent.name for path in package.glob("*/__init__.py")} == set(ORDER)
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for position, folder in enumerate(ORDER)
        for path in (package / folder).rglob("*.py")
        for name in imported(path)
        if name.startswith("albireo.")
        and (part := name.split(".")[1]) in ORDER
        and part not in ORDER[position:]
    }
    assert not wrong
