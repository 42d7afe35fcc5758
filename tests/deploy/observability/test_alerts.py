"""Alert rules load, fire when they should, and ask for what is served."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from albireo.telemetry.catalogue import METRICS
from tests.deploy.observability.served import metric_names, series_names, unknown_labels

ROOT = Path(__file__).resolve().parents[3]
ALERTS = ROOT / "deploy" / "observability" / "alerts.yml"
FIRED = Path(__file__).parent / "alerts.test.yml"

RULES: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_asks_for_what_is_served_and_says_what_to_do(rule: dict[str, Any]) -> None:
    served = {series for metric in METRICS for series in series_names(metric)}
    names = metric_names(rule["expr"])
    assert names <= served
    assert names or rule["expr"].startswith("up{")
    assert not unknown_labels(rule["expr"])
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["runbook"].endswith(".")
    # A summary names no label that the expression has summed away.
    for label in re.findall(r"\$labels\.([a-z_]+)", rule["annotations"]["summary"]):
        grouped = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
        assert all(label in group.split(", ") for group in grouped), label


def test_every_rule_is_tried() -> None:
    fired = set(re.findall(r'alertname="(\w+)"', FIRED.read_text(encoding="utf-8")))
    assert fired == {rule["alert"] for rule in RULES}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (of Prometheus) is not on the PATH")
def test_rules_load_and_fire_when_they_should(tmp_path: Path) -> None:
    tests = tmp_path / "alerts.test.yml"
    tests.write_text(FIRED.read_text(encoding="utf-8").replace("[ALERTS]", f"[{ALERTS}]"), encoding="utf-8")
    for command in (["check", "rules", str(ALERTS)], ["test", "rules", str(tests)]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
