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
EXTRAS = PROJECT["project"]["optional-dependencies"]
WORKER = EXTRAS["worker"]
GPU = [*NEEDED, *WORKER, *EXTRAS["redis-server"], *EXTRAS["test"]]
LOCKS = ROOT / "deploy" / "locks"
EXCLUDES = {"gpu": "gpu.exclude"}
"""What a lock leaves out, where that is more than torch."""


def pins(lock: str) -> dict[str, str]:
    """Version by package; each has a hash."""
    text = (LOCKS / f"{lock}.txt").read_text(encoding="utf-8")
    entries = re.findall(r"(?m)^([A-Za-z0-9._-]+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}", text)
    assert len(entries) == len(re.findall(r"(?m)^[A-Za-z0-9]", text))
    return {canonicalize_name(name): version for name, version in entries}


@pytest.mark.parametrize(
    ("lock", "needed"),
    [
        ("control", NEEDED),
        ("worker", NEEDED + WORKER),
        ("gpu", GPU),
        ("build", PROJECT["build-system"]["requires"]),
    ],
)
def test_a_lock_has_what_the_project_needs(lock: str, needed: list[str]) -> None:
    locked, excludes = pins(lock), LOCKS / EXCLUDES.get(lock, "torch.exclude")
    left_out = excludes.read_text(encoding="utf-8").split()
    for requirement in map(Requirement, needed):
        if requirement.name not in left_out:
            version = locked.get(canonicalize_name(requirement.name))
            assert version, f"{requirement.name} is not locked: run `make lock`"
            assert version in requirement.specifier, f"{requirement}: {version} is locked: run `make lock`"
    assert not locked.keys() & set(left_out)
