"""Imports within the gateway go one way: no folder imports one that is above it or next to it."""

from __future__ import annotations

from pathlib import Path

from tests.test_imports import ROOT, imported

LAYERS: list[set[str]] = [
    {"settings", "store", "calls", "tls"},
    {"text"},
    {"requests"},
    {"streams"},
    {"telemetry", "liveness"},
    {"models"},
    {"inference", "control"},
    {"server"},
    {"service"},
    {"main"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def part_of(path: Path) -> str:
    return path.relative_to(ROOT / "gateway").with_suffix("").parts[0]


def test_each_part_of_the_gateway_imports_lower_parts_only() -> None:
    files = [path for path in (ROOT / "gateway").rglob("*.py") if part_of(path) != "__init__"]
    assert {part_of(path) for path in files} == set(RANK)
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in imported(path)
        if name.startswith("gateway.")
        and (part := name.split(".")[1]) != part_of(path)
        and RANK[part] >= RANK[part_of(path)]
    }
    assert not wrong
