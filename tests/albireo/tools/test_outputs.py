"""Files that a command writes at its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from albireo.tools.outputs import check_drawable, check_writable, report


def test_a_check_leaves_files_as_they_are(tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text("old")
    for path in (old, tmp_path / "new.json", "", "-", None):
        check_writable("--json", path)
    assert old.read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]


@pytest.mark.parametrize("path", ["missing/a.json", "."])
def test_a_path_that_cannot_be_written_is_an_error_of_its_option(tmp_path: Path, path: str) -> None:
    with pytest.raises(typer.BadParameter) as raised:
        check_writable("--json", tmp_path / path)
    assert raised.value.param_hint == "--json"


def test_a_picture_is_a_png_and_needs_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_drawable("--chart", None)
    check_drawable("--chart", tmp_path / "a.png")
    with pytest.raises(typer.BadParameter, match=r"must end in \.png"):
        check_drawable("--chart", tmp_path / "a.pdf")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(typer.BadParameter, match="pip install 'albireo"):
        check_drawable("--chart", tmp_path / "a.png")


def test_a_report_is_shown_and_written_or_printed_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, path = {"setup": "here"}, tmp_path / "a.json"
    for json_to, printed in (("", "a table"), (str(path), "a table"), ("-", json.dumps(found, indent=2))):
        report(found, json_to, lambda: print("a table"))
        assert capsys.readouterr().out == printed + "\n"
    assert json.loads(path.read_text()) == found
