"""Dashboards are those that their program makes, show every metric, and ask for no other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from albireo.telemetry.catalogue import METRICS
from deploy.observability.dashboards import DASHBOARDS, FILES, rendered
from tests.deploy.observability.served import metric_names, series_names, unknown_labels


def panels(name: str) -> list[dict[str, Any]]:
    """Those that show something, from the committed file."""
    found: list[dict[str, Any]] = json.loads((FILES / f"{name}.json").read_text(encoding="utf-8"))["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def queries(name: str) -> list[str]:
    return [target["expr"] for panel in panels(name) for target in panel["targets"]]


ALL = [(name, query) for name in DASHBOARDS for query in queries(name)]


def test_the_committed_files_are_what_the_program_makes() -> None:
    assert {path.stem for path in FILES.glob("*.json")} == set(DASHBOARDS)
    for name in DASHBOARDS:
        assert (FILES / f"{name}.json").read_text(encoding="utf-8") == rendered(name), (
            "run: python -m deploy.observability.dashboards"
        )


def test_every_metric_is_in_a_panel() -> None:
    shown = {found for _, query in ALL for found in metric_names(query)}
    for metric in METRICS:
        assert shown & series_names(metric), metric.name


@pytest.mark.parametrize(("name", "query"), ALL)
def test_queries_ask_for_what_is_served(name: str, query: str) -> None:
    served = {series for metric in METRICS for series in series_names(metric)}
    assert metric_names(query)
    assert metric_names(query) <= served
    assert not unknown_labels(query)
    assert '{albireo_model=~"$model"' in query


def test_panels_do_not_overlap_and_say_what_they_show() -> None:
    for name in DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in panels(name):
            position = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(position["x"], position["x"] + position["w"])
                for y in range(position["y"], position["y"] + position["h"])
            }
            assert not cells & taken, panel["title"]
            assert all(x < 24 for x, _ in cells), panel["title"]
            taken |= cells
            assert panel["description"].endswith("."), panel["title"]
        identities = [panel["id"] for panel in panels(name)]
        assert len(set(identities)) == len(identities)


def test_variables_are_read_from_a_metric_that_has_them() -> None:
    for name in DASHBOARDS:
        board = json.loads((FILES / f"{name}.json").read_text(encoding="utf-8"))
        variables = {variable["name"]: variable["query"] for variable in board["templating"]["list"]}
        assert variables == {
            "model": "label_values(albireo_scheduler_epoch, albireo_model)",
            "group": 'label_values(albireo_scheduler_slots_total{albireo_model=~"$model"}, albireo_group)',
        }
