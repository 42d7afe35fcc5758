"""What the images install is what pyproject.toml allows, by version and hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NEEDED = PROJECT["project"]["dependencies"]
WORKER = PROJECT["project"]["optional-dependencies"]["worker"]


def pins(lock: str) -> dict[str, str]:
    """Version by package; each has a hash."""
    text = (ROOT / "deploy" / "locks" / f"{lock}.txt").read_text(encoding="utf-8")
    entries = re.findall(r"(?m)^([A-Za-z0-9._-]+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}", text)
    assert len(entries) == len(re.findall(r"(?m)^[A-Za-z0-9]", text))
    return {canonicalize_name(name): version for name, version in entries}


@pytest.mark.parametrize(
    ("lock", "needed"),
    [("control", NEEDED), ("worker", NEEDED + WORKER), ("build", PROJECT["build-system"]["requires"])],
)
def test_a_lock_has_what_the_project_needs(lock: str, needed: list[str]) -> None:
    locked = pins(lock)
    for requirement in map(Requirement, needed):
        if requirement.name != "torch":
            version = locked.get(canonicalize_name(requirement.name))
            assert version, f"{requirement.name} is not locked: run `make lock`"
            assert version in requirement.specifier, f"{requirement}: {version} is locked: run `make lock`"
    assert "torch" not in locked
