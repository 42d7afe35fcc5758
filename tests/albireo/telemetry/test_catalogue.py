"""The list of metrics is sound, documented, and exported under the names that it says."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from albireo.runtime.settings import ServiceSettings
from albireo.telemetry import catalogue
from albireo.telemetry.attributes import ATTRIBUTES
from albireo.telemetry.catalogue import METRICS
from albireo.telemetry.metric import Kind
from albireo.telemetry.providers import Exported
from albireo.telemetry.table import markdown

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_of_the_documentation_is_current() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == markdown()


def test_the_page_is_made_by_the_command_that_it_names() -> None:
    command = [sys.executable, "-W", "error", "-m", "albireo.telemetry.table"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert made.stdout == markdown()


def test_names_are_told_once_and_attributes_are_explained() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names) == len({metric.prometheus for metric in METRICS})
    for metric in METRICS:
        assert re.fullmatch(r"(albireo|gen_ai)(\.[a-z_]+)+", metric.name)
        assert metric.description.endswith(".")
        assert set(metric.attributes) <= set(ATTRIBUTES)
        assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
        assert list(metric.buckets) == sorted(set(metric.buckets))
    assert set(ATTRIBUTES) == {name for metric in METRICS for name in metric.attributes}


def test_the_buckets_of_genai_metrics_are_the_conventions() -> None:
    assert len(catalogue.REQUEST_DURATION.buckets) == 14
    assert catalogue.REQUEST_DURATION.buckets == tuple(round(0.01 * 2**power, 2) for power in range(14))
    assert catalogue.TIME_TO_FIRST_TOKEN.buckets[-3:] == (5.0, 7.5, 10.0)
    assert catalogue.TIME_PER_OUTPUT_TOKEN.buckets[:3] == (0.01, 0.025, 0.05)


@pytest.fixture
def exported() -> dict[str, str]:
    """All metrics of the catalogue with a value each, as an endpoint serves them: samples by family."""
    telemetry = Exported(
        ServiceSettings.model_validate({}),
        host="127.0.0.1",
        metrics_port=0,
        attributes={"service.name": "test"},
    )
    for metric in METRICS:
        attributes = dict.fromkeys(metric.attributes, "x")
        if metric.kind is Kind.HISTOGRAM:
            telemetry.folded(metric, attributes).add(0.5)
        else:
            name: tuple[str, ...] = tuple(attributes.values())
            telemetry.observe(metric, lambda name=name: {name: 1.0} if name else 1.0)  # type: ignore[misc]
    address = f"http://127.0.0.1:{telemetry.metrics_port}/metrics"
    with urllib.request.urlopen(address, timeout=5) as answer:
        text = answer.read().decode()
    telemetry.shutdown()
    return {
        sample.name: sample.labels.get("service_name", "")
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_names_are_those_that_the_endpoint_serves(exported: dict[str, str]) -> None:
    for metric in METRICS:
        name = metric.prometheus + ("_bucket" if metric.kind is Kind.HISTOGRAM else "")
        assert exported.get(name) == "test", name
