"""The folders of a worker import one another in one direction only."""

from __future__ import annotations

from pathlib import Path

from tests.test_imports import imported

ROOT = Path(__file__).resolve().parents[2] / "worker_svc"
ORDER = (
    *("buffers", "collectives", "kernels", "model", "kv_tiers", "cost", "sampling", "batch"),
    *("runner", "telemetry", "stages"),
)
"""Each may import itself and those before it."""


def test_every_folder_has_its_place_in_the_order() -> None:
    assert {path.parent.name for path in ROOT.glob("*/*.py")} == set(ORDER)


def test_a_folder_imports_none_of_those_after_it() -> None:
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for position, folder in enumerate(ORDER)
        for path in (ROOT / folder).rglob("*.py")
        for name in imported(path)
        if name.startswith("worker_svc.") and name.split(".")[1] not in ORDER[: position + 1]
    }
    assert not wrong
