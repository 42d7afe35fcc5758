"""Words that code and documents had in place of the field's words do not come back.

The words to use are those of ``docs/glossary.md``.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
REPLACED = {
    # Who does it has a name: a tier, a thread, a client, the operator.
    "[Nn]obody|[Ss]omebody|[Ww]hoever": "the process, client or reader that is meant",
    # A reader whose first language is not English takes these for something else.
    "[Bb]eside": "next to, in addition to, at the same time as",
    "[Tt]old|tells of": "reported, recorded, announced",
    "no numbers?": "NaN",
    # Private names, where the field has one.
    "Draft": "PlanBuilder",
    "Held": "HeldBranches",
    "Room": "ScratchBuffer",
    "Places?": "AdmissionLimit, or a field of a declared struct",
    "Neighbours": "LocalRanks",
    "(Host|Cuda)?Marks": "timestamps",
    "keeper": "lease renewal",
}
"""Pattern of whole words, and what stands in their place."""
EXEMPT = {
    "tests/test_words.py",
    "bench/tiny/corpus.py",  # stories that the bundled model is trained on
}
FOLDERS = "albireo bench deploy docs examples gateway proto scheduler_svc tests worker_svc".split()
TEXTS = [
    path
    for folder in (*ROOT.glob("*.md"), *(ROOT / name for name in FOLDERS))
    for path in ([folder] if folder.is_file() else sorted(folder.rglob("*")))
    if path.suffix in (".md", ".proto", ".py") and path.relative_to(ROOT).as_posix() not in EXEMPT
]


@pytest.mark.parametrize("pattern", REPLACED)
def test_a_replaced_word_does_not_come_back(pattern: str) -> None:
    word = re.compile(rf"\b({pattern})\b")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in TEXTS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if word.search(line)
    ]
    assert found == [], f"write instead: {REPLACED[pattern]}"
