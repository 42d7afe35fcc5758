"""The table, the lines below it, the JSON and the chart of a plan, from outcomes that are made up."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from albireo.planning.choice.best import Limits
from albireo.planning.choice.question import Question
from albireo.planning.choice.recommendation import Recommendation, recommend
from albireo.planning.choice.report import chart, lines, table
from albireo.planning.choice.serving import Serving
from albireo.planning.choice.split import Split, UnfitSplit
from albireo.planning.workload import Workload, WorkloadRequest
from tests.albireo.planning.choice.models import outcome, write_model
from worker_svc.cost.device import Device
from worker_svc.model.config import ModelConfig


@pytest.fixture
def found(tmp_path: Path) -> Recommendation:
    model = write_model(tmp_path, "Qwen2.5-32B-Instruct")
    serving = Serving(model, "qwen", 256, 8192, 2048, 512)
    workload = Workload("four requests", (WorkloadRequest(0.0, 100, 10),) * 4, 4)
    question = Question(
        ModelConfig.from_dir(model), Device.load("h100"), 8, workload, serving, Limits(tpot_p99=0.05)
    )
    outcomes = [
        outcome(Split(2, 4), joules_per_token=1.25),
        outcome(Split(4, 2), tokens_per_second=9000.0),
        outcome(Split(8, 1), tokens_per_second=9500.0, tpot={"p50": 0.06, "p99": 0.07}, errors={"full": 3}),
    ]
    return recommend(question, outcomes, [UnfitSplit(Split(1, 8), "too large [b]")])


def shown(found: Recommendation) -> str:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(table(found))
    return console.export_text()


def test_the_table_has_each_split_and_marks_the_choice(found: Recommendation) -> None:
    text = shown(found)
    assert "simulated: qwen on 8 x h100, overlapped" in text
    assert "four requests. Groups x" in text
    assert "2x4 *" in text
    for cells in (("4x2", "4,000", "1.25"), ("1x8", "9,500", "60.0 / 70.0")):
        assert any(all(cell in line for cell in cells) for line in text.splitlines()), cells


def test_the_lines_name_the_choice_the_reasons_the_rules_and_what_to_run(found: Recommendation) -> None:
    text = "\n".join(lines(found))
    assert text.startswith("best: 2x4, 2 groups at TP degree 4\n1x8 would have 6% more throughput")
    assert "8x1: too large [b]" in text
    assert "1x8: 3 of 256 requests failed: full" in text
    assert "4 M / C: t = 4; t_e" in text
    assert "by these figures: 4" in text
    assert text.count("albireo up") == 1
    assert text.count("docker compose") == 1
    assert text.count("  STACK_TP=4\n") == 1
    assert "and groups.yml:\n  services:\n    worker-gpu:\n" in text
    assert "kustomization.yaml" in text


def test_a_rule_of_thumb_above_the_devices_is_called_so(found: Recommendation) -> None:
    small = replace(found, rule_of_thumb=16)
    assert "t = 16, more than the devices; t_e, the largest t" in small.degrees


def test_of_an_open_loop_no_t_e_is_shown(found: Recommendation) -> None:
    workload = replace(found.question.workload, concurrency=0)
    again = recommend(replace(found.question, workload=workload), found.outcomes, found.unfit)
    assert again.t_e is None
    assert "t_e by its definition needs a closed loop" in again.degrees


def test_where_requests_fail_in_all_splits_no_t_e_is_shown(found: Recommendation) -> None:
    failing = [replace(each, errors={"full": 1}) for each in found.outcomes]
    assert recommend(found.question, failing, found.unfit).t_e is None


def test_the_json_is_marked_as_simulated_and_has_all_of_it(found: Recommendation) -> None:
    plain = json.loads(json.dumps(found.as_json()))
    assert plain["simulated"] is True
    assert (plain["best"], plain["within_limits"], plain["t_e"], plain["rule_of_thumb"]) == (
        "2x4",
        True,
        4,
        4,
    )
    assert [split["split"] for split in plain["splits"]] == ["4x2", "2x4", "1x8"]
    assert plain["do_not_fit"] == {"8x1": "too large [b]"}


def test_the_chart_is_a_picture(found: Recommendation, tmp_path: Path) -> None:
    chart(found, tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
