"""What a running stack tells: one trace over three tiers, every metric of the catalogue, logs."""

from __future__ import annotations

import json
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from albireo.local.ports import free_port
from albireo.telemetry.catalogue import METRICS
from albireo.telemetry.metric import Kind, Tier
from bench.observability.otlp_receiver import OtlpReceiver, ReceivedSpan
from tests.albireo.telemetry.kept import PARENT_ID, TRACE_ID, TRACEPARENT
from tests.stack import Answer, Running, ask, request, running_stack, wait_for

RANKS = ("g0-rank-0", "g0-rank-1")
TIERS = {"gateway": Tier.GATEWAY, "scheduler": Tier.SCHEDULER, **dict.fromkeys(RANKS, Tier.WORKER)}
QUICK = {"OTEL_METRIC_EXPORT_INTERVAL": "500", "OTEL_BSP_SCHEDULE_DELAY": "100"}


Samples = dict[str, list[tuple[dict[str, str], float]]]
"""Labels and value of each sample, by name."""


@dataclass(frozen=True)
class ObservedStack:
    """A stack of two ranks with all its telemetry on."""

    running: Running
    receiver: OtlpReceiver
    ports: dict[str, int]  # by process
    logs: Path

    def spans(self, trace_id: str = "") -> list[ReceivedSpan]:
        return [span for span in self.receiver.spans if trace_id in ("", span.trace_id)]

    def scrape(self, process: str) -> Samples:
        address = f"http://127.0.0.1:{self.ports[process]}/metrics"
        with urllib.request.urlopen(address, timeout=5) as answer:
            families = text_string_to_metric_families(answer.read().decode())
            found: Samples = defaultdict(list)
            for family in families:
                for sample in family.samples:
                    found[sample.name].append((sample.labels, sample.value))
        return found


def free_ports() -> dict[str, int]:
    """Each rank of a worker group has its own, one after the other."""
    ports = {name: free_port("127.0.0.1") for name in ("gateway", "scheduler", "g0-rank-0")}
    return {**ports, "g0-rank-1": ports["g0-rank-0"] + 1}


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObservedStack]:
    data, ports = tmp_path_factory.mktemp("telemetry"), free_ports()
    environment = {
        **QUICK,
        "ALBIREO_GATEWAY_METRICS_PORT": str(ports["gateway"]),
        "ALBIREO_SCHEDULER_METRICS_PORT": str(ports["scheduler"]),
        "ALBIREO_WORKER_METRICS_PORT": str(ports["g0-rank-0"]),
    }
    with OtlpReceiver() as receiver:
        options: dict[str, Any] = {
            "tp": 2,
            "otlp_endpoint": receiver.endpoint,
            "trace_sample_ratio": 0,
            "log_format": "json",
        }
        with running_stack(data, environment, **options) as running:
            yield ObservedStack(running, receiver, ports, data / "logs")


def traced(running: Running, traceparent: str, text: str, **sampling: Any) -> Answer:
    metadata = (("traceparent", traceparent),)
    message = request(text, **sampling)
    return Answer(list(running.inference.Generate(message, metadata=metadata, timeout=60)))


def test_a_request_is_one_trace_over_all_three_tiers(observed: ObservedStack) -> None:
    ask(observed.running, request("What is 1 + 1?"))  # has no context, and the ratio is 0
    answer = traced(observed.running, TRACEPARENT, "What is 37 + 45?", seed=2**64 - 1, n=1)
    request_id = answer.events[0].accepted.request_id
    wait_for(lambda: len(observed.spans()) >= 4, 20, "the spans do not arrive")
    spans = {span.name: span for span in observed.spans()}
    assert sorted(span.name for span in observed.spans()) == ["chat tiny", "decode", "prefill", "queue"]
    call = spans["chat tiny"]
    assert {span.trace_id for span in spans.values()} == {TRACE_ID}
    assert call.parent_id == PARENT_ID
    assert {span.parent_id for span in spans.values() if span is not call} == {call.span_id}
    services = {name: span.service for name, span in spans.items() if span is not call}
    assert call.service == "albireo-gateway"
    assert services == {
        "queue": "albireo-scheduler",
        "prefill": "albireo-worker",
        "decode": "albireo-worker",
    }
    # One machine, one clock: each part lies in the call, and they follow one another.
    queue, prefill, decode = (spans[name] for name in ("queue", "prefill", "decode"))
    moments = [call.start, queue.start, prefill.end, decode.end, call.end]
    assert moments == sorted(moments)
    assert queue.start < queue.end < call.end  # a busy scheduler learns late that its plan is in the log
    assert queue.start < prefill.start < prefill.end == decode.start < decode.end
    usage = answer.finished.usage
    assert call.attributes["gen_ai.operation.name"] == "chat"
    assert call.attributes["gen_ai.provider.name"] == "albireo"
    assert call.attributes["gen_ai.request.max_tokens"] == 48
    assert call.attributes["gen_ai.request.seed"] == -1
    assert call.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert call.attributes["gen_ai.usage.input_tokens"] == usage.prompt_tokens
    assert call.attributes["gen_ai.usage.output_tokens"] == usage.completion_tokens == len(answer.ids)
    assert call.attributes["rpc.response.status_code"] == "OK"
    assert "error.type" not in call.attributes
    assert decode.attributes["gen_ai.usage.output_tokens"] == usage.completion_tokens
    assert decode.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert prefill.attributes["gen_ai.usage.input_tokens"] == usage.prompt_tokens
    assert {span.attributes["gen_ai.response.id"] for span in spans.values()} == {request_id}
    line = next(
        line
        for line in map(json.loads, (observed.logs / "gateway.log").read_text().splitlines())
        if line.get("request_id") == request_id
    )
    assert (line["trace_id"], line["status"], line["level"]) == (TRACE_ID, "OK", "INFO")
    assert line["output_tokens"] == usage.completion_tokens
    assert 0 < line["ttft_s"] <= line["duration_s"]


def test_branches_and_cancellations_are_in_the_trace_too(observed: ObservedStack) -> None:
    trace_id = "1" * 32
    metadata = (("traceparent", f"00-{trace_id}-{PARENT_ID}-01"),)
    message = request("Tell me a story.", max_tokens=900, ignore_eos=True, n=2)
    call = observed.running.inference.Generate(message, metadata=metadata, timeout=60)
    seen: set[int] = set()
    for event in call:
        if event.HasField("tokens"):
            seen.add(event.tokens.index)
        if seen == {0, 1}:
            break
    call.cancel()

    def parts() -> Counter[tuple[str, Any]]:
        return Counter(
            (span.name, span.attributes.get("albireo.branch")) for span in observed.spans(trace_id)
        )

    names = ("queue", "prefill", "decode")
    expected: Counter[tuple[str, Any]] = Counter((name, branch) for name in names for branch in (0, 1))
    expected["chat tiny", None] = 1
    wait_for(lambda: parts() == expected, 20, "the spans do not arrive")
    [whole] = [span for span in observed.spans(trace_id) if span.service == "albireo-gateway"]
    assert whole.attributes["error.type"] == "CANCELLED"
    assert whole.attributes["gen_ai.request.choice.count"] == 2
    assert whole.attributes["gen_ai.response.finish_reasons"] == ["cancelled"] * 2
    assert not whole.error  # it was the client's wish
    for span in observed.spans(trace_id):
        if span.name == "decode":
            assert span.attributes["gen_ai.response.finish_reasons"] == ["cancelled"]


def test_every_metric_of_the_catalogue_is_served_and_no_other(observed: ObservedStack) -> None:
    for _ in range(2):
        ask(observed.running, request("The same question twice: what is 3 + 4?"))
    with ThreadPoolExecutor(8) as clients:
        messages = [
            request(f"What is {n} + 4?", chat=n % 2 == 0, ignore_eos=True, max_tokens=80) for n in range(16)
        ]
        asked = [clients.submit(ask, observed.running, message) for message in messages]
        under_load: Samples = {}

        def loaded() -> bool:
            nonlocal under_load
            under_load = observed.scrape("scheduler")
            return all(
                total(under_load, f"albireo_scheduler_{name}") for name in ("running", "kv_blocks_used")
            )

        wait_for(loaded, 10, "the scheduler serves no load")
        for answer in asked:
            assert answer.result().kinds[-1] == "finished"
    with pytest.raises(grpc.RpcError):
        ask(observed.running, request("", max_tokens=1, chat=False))
    observed.running.wait_idle()
    wait_for(lambda: not busy(observed), 10, "the stack is idle and its metrics do not say so")
    for process, tier in TIERS.items():
        samples = observed.scrape(process)
        additions = ("_sum", "_count", "target_info")
        served = {name.removesuffix("_bucket") for name in samples if not name.endswith(additions)}
        expected = {m.prometheus for m in METRICS if m.tier in (tier, Tier.ALL) and not m.needs}
        assert served == expected, process
        for metric in METRICS:
            if metric.prometheus not in expected:
                continue
            assert_plausible(metric.prometheus, metric.kind, samples)
    scheduler, gateway = observed.scrape("scheduler"), observed.scrape("gateway")
    assert total(scheduler, "albireo_scheduler_output_tokens_total") >= 16 * 80
    assert total(gateway, "albireo_gateway_tokens_total", gen_ai_token_type="output") >= 16 * 80
    assert total(gateway, "albireo_gateway_requests_total", status="INVALID_ARGUMENT") == 1
    assert total(gateway, "gen_ai_server_request_duration_seconds_count", error_type="INVALID_ARGUMENT") == 1
    steps = total(scheduler, "albireo_scheduler_steps_total")
    assert steps == total(observed.scrape("g0-rank-0"), "albireo_worker_steps_total")
    assert steps == total(observed.scrape("g0-rank-1"), "albireo_worker_steps_total")


NEVER_ON_A_GOOD_DAY = {
    "albireo_gateway_bound_hits_total",
    "albireo_scheduler_preemptions_total",
    "albireo_scheduler_late_rows_total",
    "albireo_scheduler_inbox_backlog",
    "albireo_scheduler_wasted_rows_total",
    "albireo_scheduler_failovers_total",
    "albireo_scheduler_group_closings_total",
    "albireo_scheduler_moved_requests_total",
}
OFTEN_ZERO = {"albireo_scheduler_group_heartbeat_age_seconds"}  # where the scheduler has just looked
IDLE_IS_ZERO = {
    "albireo_scheduler_queue_depth",
    "albireo_scheduler_waiting",
    "albireo_scheduler_predicted_wait_seconds",
    "albireo_scheduler_running",
    "albireo_scheduler_slots_used",
    "albireo_scheduler_kv_blocks_used",
    "albireo_scheduler_steps_in_flight",
    "albireo_gateway_streams",
    "albireo_worker_step_age_seconds",
}


def assert_plausible(name: str, kind: Kind, samples: Samples) -> None:
    """The stack has worked, without a mishap, and is idle."""
    if kind is Kind.HISTOGRAM:
        count, sum_ = total(samples, f"{name}_count"), total(samples, f"{name}_sum")
        assert count > 0, name
        assert 0 <= sum_ / count < (64 if name.endswith("rows") else 60), name
        if "visible" not in name and "plan_" not in name:
            assert sum_ > 0, name
    elif name in IDLE_IS_ZERO:
        assert total(samples, name) == 0, name
    elif name not in NEVER_ON_A_GOOD_DAY and name not in OFTEN_ZERO:
        assert total(samples, name) > 0, name


def busy(observed: ObservedStack) -> bool:
    """Whether a gauge of work says that there is some; the scheduler looks at itself a few times a second."""
    return any(total(observed.scrape(process), name) for process in TIERS for name in IDLE_IS_ZERO)


def total(samples: Samples, name: str, **labels: str) -> float:
    return sum(value for found, value in samples[name] if labels.items() <= found.items())


def test_metrics_of_each_tier_arrive_at_the_collector(observed: ObservedStack) -> None:
    ask(observed.running, request("What is 2 + 2?"))
    expected = {
        (f"albireo-{'worker' if tier is Tier.WORKER else process}", metric.name)
        for process, tier in TIERS.items()
        for metric in METRICS
        if metric.tier in (tier, Tier.ALL) and not metric.needs
    }

    def missing() -> set[tuple[str, str]]:
        return expected - {(service, name) for service, _, name in observed.receiver.metrics}

    wait_for(lambda: not missing(), 20, f"not all metrics arrive: {missing()}")
    workers = {instance for service, instance, _ in observed.receiver.metrics if service == "albireo-worker"}
    assert len(workers) == 2


@pytest.mark.slow
def test_services_go_on_without_a_collector_and_say_so_sparingly(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "otlp_endpoint": f"http://127.0.0.1:{free_port('127.0.0.1')}",
        "trace_sample_ratio": 1,
        "device": "sim",
        "cost_model": "fast-5ms",
    }
    with running_stack(tmp_path, QUICK, **options) as running:
        began = time.monotonic()
        while time.monotonic() - began < 6:  # long enough for several exports to be given up
            answer = ask(running, request("Hi", max_tokens=20, ignore_eos=True))
            assert len(answer.ids) == 20
        began = time.monotonic()
    assert time.monotonic() - began < 15
    for name in ("gateway", "scheduler", "g0-rank-0"):
        log = (tmp_path / "logs" / f"{name}.log").read_text()
        exports = [line for line in log.splitlines() if "export" in line]
        assert 1 <= len(exports) <= 4, log
        assert "Traceback" not in log
