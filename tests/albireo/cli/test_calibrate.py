"""Options of ``albireo calibrate``."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from albireo.cli import app


def _refusal(*options: str) -> str:
    result = CliRunner().invoke(app, ["calibrate", *options], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    return result.output


@pytest.mark.parametrize("degrees", ["", "two", "0", "1,65", "1;2"])
def test_tp_degrees_are_a_list_of_numbers(degrees: str, tmp_path: Path) -> None:
    output = _refusal("--tp", degrees, "--output", str(tmp_path / "device.toml"))
    assert "TP degrees are numbers from 1 to 64, such as 1,2" in output


def test_a_degree_that_the_model_cannot_be_divided_by_is_refused(tmp_path: Path) -> None:
    output = _refusal("--tp", "3", "--output", str(tmp_path / "device.toml"))
    assert "cannot be divided by a TP degree of 3" in output


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    output = _refusal("--output", str(tmp_path / "missing" / "device.toml"))
    assert "--output" in output
    assert "No such file or directory" in output
