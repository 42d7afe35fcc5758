"""``albireo plan``: one small plan from end to end, and bad input in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from albireo.cli import app
from albireo.planning.choice import comparison
from tests.albireo.planning.choice.models import write_model

SMALL = [
    "--prompt-length",
    "fixed:64",
    "--output-length",
    "fixed:8",
    "--concurrency",
    "4",
    "--num-requests",
    "12",
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path, "Qwen2.5-32B-Instruct")


def run(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["plan", *map(str, arguments)])


def line(result: Result) -> str:
    """An error as one line of text, without the box around it."""
    assert result.exit_code != 0
    return " ".join(result.stderr.replace("│", " ").split())


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "MOST_PROCESSES", 1)


@pytest.mark.usefixtures("in_this_process")
def test_a_plan_simulates_the_splits_and_ends_with_commands(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    result = run("--model", model, "--devices", 2, *SMALL, "--json", file)
    assert result.exit_code == 0, result.output
    found = json.loads(file.read_text())
    assert [split["split"] for split in found["splits"]] == ["2x1", "1x2"]
    for split in found["splits"]:
        assert split["requests_failed"] == 0
        device_seconds = sum(split["device_seconds_per_token"].values())
        assert device_seconds == pytest.approx(2 / split["output_tokens_per_second"])
    assert found["best"] == "1x2"
    assert found["up"] in result.stdout
    assert "simulated: Qwen2.5-32B-Instruct on 2 x h100" in result.stdout


def test_the_same_plan_has_the_same_bytes_whether_in_processes_or_not(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--model", model, "--devices", 2, *SMALL, "--json", "-")
    first = run(*arguments).stdout
    monkeypatch.setattr(comparison, "MOST_PROCESSES", 1)
    assert run(*arguments).stdout == first


def test_a_model_that_fits_at_no_degree_is_refused(model: Path) -> None:
    text = line(run("--model", model, "--device", "l40s", "--devices", 1, *SMALL))
    assert (
        "the model fits at no TP degree; at 1: the model does not fit: weights 65.5 GB over 1 device" in text
    )


def test_a_workload_longer_than_the_context_is_refused(model: Path) -> None:
    long = ["--prompt-length", "fixed:9000", "--output-length", "fixed:8"]
    assert "the context of 8192 tokens" in line(run("--model", model, *long))
    assert "32768" in line(run("--model", model, "--max-model-len", 40000, *long))


@pytest.mark.parametrize(
    ("arguments", "option", "message"),
    [
        (["--devices", 0], "--devices", "greater than or equal to 1"),
        (["--device", "h1000"], "--device", "h200"),
        (["--max-seqs", 4096], "'--max-seqs' / '--max-num-batched-tokens'", "4096 slots, and 2048 tokens"),
        (["--concurrency", 166_667], "--concurrency", "at most 166666 without --num-requests"),
        (["--max-model-len", 1], "Invalid value: prompts of 1", "do not fit into the context of 1 tokens"),
        (["--workload", "chatt"], "--workload", "chat, summarize, reasoning"),
        (["--json", "no/plan.json"], "--json", "No such file or directory"),
        (["--chart", "no/plan.png"], "--chart", "No such file or directory"),
    ],
)
def test_a_bad_option_is_named_with_what_is_allowed(
    model: Path, arguments: list[object], option: str, message: str
) -> None:
    text = line(run("--model", model, *arguments))
    assert option in text
    assert message in text


def test_a_directory_without_a_config_is_refused(tmp_path: Path) -> None:
    assert "config.json" in line(run("--model", tmp_path))
