"""The SDK behind the instruments: off, on, and without a collector."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

from albireo import telemetry
from albireo.local.ports import free_port
from albireo.runtime.settings import ServiceSettings
from albireo.telemetry import OFF
from albireo.telemetry.catalogue import REDIS_ROUND_TRIP, STEP_TASK, STEPS
from albireo.telemetry.providers import ATTRIBUTE_LENGTH, EXPORT_SECONDS, SHUTDOWN_SECONDS, Exported
from bench.observability.otlp_receiver import OtlpReceiver

OFF_SERVICES = """
import sys
from albireo import telemetry
from albireo.runtime.settings import ServiceSettings
exported = telemetry.start("gateway", ServiceSettings(), host="127.0.0.1", metrics_port=None)
exported.tracer.start_span("x").end()
exported.shutdown()
assert exported is telemetry.OFF
import threading
import opentelemetry.trace
import gateway.main, scheduler_svc.service, worker_svc.service
ours = "opentelemetry.exporter", "opentelemetry.sdk.trace", "prometheus_client", "albireo.telemetry.providers"
print([name for name in sys.modules if name.startswith(ours)])
print([thread.name for thread in threading.enumerate()])
print(type(opentelemetry.trace.get_tracer_provider()).__name__)
"""


def started(endpoint: str = "", metrics_port: int | None = None) -> Exported:
    settings = ServiceSettings.model_validate({"otlp_endpoint": endpoint, "trace_sample_ratio": 1})
    exported = telemetry.start("worker", settings, host="127.0.0.1", metrics_port=metrics_port, rank=2)
    assert isinstance(exported, Exported)
    return exported


def test_off_a_service_loads_no_exporter_and_runs_nothing() -> None:
    command = [sys.executable, "-c", OFF_SERVICES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["[]", "['MainThread']", "ProxyTracerProvider"], done.stderr
    assert not OFF.metered


def test_what_is_told_arrives_at_the_collector_with_who_told_it() -> None:
    with OtlpReceiver() as receiver:
        exported = started(receiver.endpoint)
        exported.tracer.start_span("work", attributes={"tokens": [1, 2]}).end()
        exported.observe(STEPS, lambda: 7)
        exported.folded(STEP_TASK, {"task": "t3"}).add(0.004)
        exported.folded(STEP_TASK, {"task": "t4"}).add(0.0)
        exported.shutdown()
        [span] = receiver.spans
        metrics = {name: metric for (_, _, name), metric in receiver.metrics.items()}
    assert (span.service, span.name, span.attributes) == ("albireo-worker", "work", {"tokens": [1, 2]})
    [steps] = metrics[STEPS.name].sum.data_points
    assert steps.as_int == 7
    first, second = metrics[STEP_TASK.name].histogram.data_points
    assert (first.count, first.sum, second.count) == (1, 0.004, 1)
    assert sum(first.bucket_counts) == 1
    assert tuple(first.explicit_bounds) == STEP_TASK.buckets
    assert not first.HasField("min")


def test_a_long_attribute_is_cut_and_keeps_no_batch_from_the_collector() -> None:
    with OtlpReceiver() as receiver:
        exported = started(receiver.endpoint)
        exported.tracer.start_span("work", attributes={"text": "x" * 9_000_000}).end()
        exported.shutdown()
        [span] = receiver.spans
    assert span.attributes == {"text": "x" * ATTRIBUTE_LENGTH}


def test_a_taken_port_is_an_error_at_the_start() -> None:
    exported = started(metrics_port=0)
    with pytest.raises(OSError, match="in use"):
        started(metrics_port=exported.metrics_port)
    exported.shutdown()


def test_a_dead_collector_costs_nothing_but_the_data(caplog: pytest.LogCaptureFixture) -> None:
    before = set(threading.enumerate())
    exported = started(f"http://127.0.0.1:{free_port('127.0.0.1')}", metrics_port=0)
    with caplog.at_level(logging.CRITICAL):  # what the SDK logs is tested with the services
        began = time.monotonic()
        for _ in range(10_000):  # more than its queue takes
            exported.tracer.start_span("lost").end()
        exported.observe(STEPS, lambda: 7)
        exported.folded(REDIS_ROUND_TRIP).add(1e-4)
        assert time.monotonic() - began < 5
        address = f"http://127.0.0.1:{exported.metrics_port}/metrics"
        with urllib.request.urlopen(address, timeout=5) as answer:
            assert b'albireo_rank="2"' in answer.read()
        began = time.monotonic()
        exported.shutdown()
        assert time.monotonic() - began < 3 * SHUTDOWN_SECONDS
    for thread in set(threading.enumerate()) - before:
        # It would draw the delay of a retry while another test of this process draws its data.
        thread.join(4 * EXPORT_SECONDS)
        assert not thread.is_alive()
