"""What documents refer to exists, and the glossary's terms are words that are used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("albireo", "bench", "gateway", "scheduler_svc", "worker_svc")
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")],
    key=lambda path: path.relative_to(ROOT).as_posix(),
)
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
GLOSSARY = ROOT / "docs" / "glossary.md"
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
CODE = re.compile(r"`([\w.-]+(?:/[\w.-]+)+/?)`")
TERM = re.compile(r"^\| ([^|]+?) \| [^|]+ \| [^|]+ \|$", re.MULTILINE)


@pytest.mark.parametrize("document", NAMES)
def test_every_link_within_the_repository_leads_somewhere(document: str) -> None:
    path = ROOT / document
    targets = [match[1] for match in LINK.finditer(path.read_text(encoding="utf-8"))]
    missing = [t for t in targets if "://" not in t and not (path.parent / t).exists()]
    assert missing == []


@pytest.mark.parametrize("document", NAMES)
def test_every_path_that_a_document_names_exists(document: str) -> None:
    """A path is what stands in code marks and begins with a folder of the repository."""
    paths = [match[1] for match in CODE.finditer((ROOT / document).read_text(encoding="utf-8"))]
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()}
    missing = [p for p in paths if p.split("/")[0] in folders and not (ROOT / p).exists()]
    assert missing == []


def terms() -> list[str]:
    """The terms of the glossary, each without its short form."""
    found = TERM.findall(GLOSSARY.read_text(encoding="utf-8"))
    return [term.split(",")[0] for term in found if term not in ("term", "---")]


def forms(term: str) -> tuple[str, ...]:
    """As prose, as a name in Python, and as a class, in lower case."""
    return term, term.replace(" ", "_"), term.replace(" ", "")


def test_the_glossary_has_each_term_once() -> None:
    found = terms()
    assert len(found) > 50
    assert sorted({term.lower() for term in found}) == sorted(term.lower() for term in found)


def test_every_term_of_the_glossary_is_used() -> None:
    """In the code, its comments included, the proto, or a document other than the glossary."""
    sources = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    sources += [*(ROOT / "proto").rglob("*.proto"), *(path for path in DOCUMENTS if path != GLOSSARY)]
    text = " ".join(" ".join(path.read_text(encoding="utf-8").lower().split()) for path in sources)
    unused = [term for term in terms() if not any(form in text for form in forms(term.lower()))]
    assert unused == []
