"""Each tier started by its own command: health, reflection, and what is missing at first."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from albireo.local.ports import free_port
from albireo.models import TINY
from albireo.v1 import control_pb2, control_pb2_grpc, inference_pb2_grpc
from tests.stack import request, wait_for

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Service:
    """One ``albireo <name>`` process and a channel to its port."""

    def __init__(self, name: str, redis_url: str, log: Path, *options: str) -> None:
        port = free_port("127.0.0.1")
        command = [sys.executable, "-m", "albireo.cli", name, "--redis-url", redis_url, "--port", str(port)]
        with log.open("ab") as output:
            self._process = subprocess.Popen([*command, *options], stdout=output, stderr=output)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.health = health_pb2_grpc.HealthStub(self.channel)
        self.seen: list[int] = []
        wait_for(self.answers, 60, f"{name} does not listen: see {log}")
        # A daemon, so that a test that fails is not held up; the watch ends with the channel.
        threading.Thread(target=self._watch, daemon=True).start()

    def answers(self) -> bool:
        assert self._process.poll() is None
        try:
            self.check()
        except grpc.RpcError:
            return False
        return True

    def check(self, service: str = "") -> int:
        return self.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=2).status

    def _watch(self) -> None:
        try:
            for answer in self.health.Watch(health_pb2.HealthCheckRequest()):
                self.seen.append(answer.status)
        except grpc.RpcError:
            return  # the service stopped

    def listed(self) -> set[str]:
        info: Any = reflection_pb2_grpc.ServerReflectionStub(self.channel).ServerReflectionInfo
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        [answer] = info(iter([ask]), timeout=5)
        return {service.name for service in answer.list_services_response.service}

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout=20)
        finally:
            self._process.kill()
            self.channel.close()


@pytest.fixture
def services() -> Iterator[dict[str, Service]]:
    """Filled by the test; whatever it leaves there is stopped."""
    found: dict[str, Service] = {}
    yield found
    for service in found.values():
        service.stop()


def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    error: Any = raised.value
    return error.code()


def published(control: Any) -> bool:
    """Whether a scheduler says how it is, which without a group it must."""
    try:
        return not control.GetLoad(control_pb2.GetLoadRequest(), timeout=5).group_alive
    except grpc.RpcError:
        return False


def test_tiers_come_up_one_by_one_and_tell_it(
    services: dict[str, Service], redis_url: str, tmp_path: Path
) -> None:
    gateway = services["gateway"] = Service(
        "gateway", redis_url, tmp_path / "g", "--model", str(TINY), "--drain-seconds", "0"
    )
    inference = inference_pb2_grpc.InferenceStub(gateway.channel)
    control = control_pb2_grpc.ControlStub(gateway.channel)
    question = request("What is 1 + 1?", max_tokens=8)

    def generate(seconds: float = 30) -> list[Any]:
        return list(inference.Generate(question, timeout=seconds))

    assert gateway.check() == NOT_SERVING
    assert code_of(generate) is grpc.StatusCode.UNAVAILABLE
    assert code_of(lambda: control.GetLoad(control_pb2.GetLoadRequest())) is grpc.StatusCode.UNAVAILABLE

    scheduler = services["scheduler"] = Service("scheduler", redis_url, tmp_path / "s")
    wait_for(lambda: published(control), 10, "no load from a scheduler without a group")
    assert scheduler.check() == gateway.check() == NOT_SERVING
    assert code_of(generate) is grpc.StatusCode.UNAVAILABLE

    options = ("--model", str(TINY), "--kv-memory", "8MiB", "--group-ttl-seconds", "1")
    worker = services["worker"] = Service("worker", redis_url, tmp_path / "w", *options)
    for name, service in services.items():
        wait_for(lambda s=service: s.check() == SERVING, 60, f"{name} does not serve")  # type: ignore[misc]
    for name in ("albireo.v1.Inference", "albireo.v1.Control"):
        assert gateway.check(name) == SERVING
    assert code_of(lambda: worker.check("no.such.Service")) is grpc.StatusCode.NOT_FOUND
    assert generate()[-1].HasField("finished")

    health = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert gateway.listed() == {"albireo.v1.Inference", "albireo.v1.Control", *health}
    assert scheduler.listed() == worker.listed() == health

    assert services.pop("worker").stop() == 0
    for name, service in services.items():
        wait_for(lambda s=service: s.check() == NOT_SERVING, 20, f"{name} still serves")  # type: ignore[misc]
        wait_for(lambda s=service: len(s.seen) > 2, 5, f"the watch of {name} misses a change")  # type: ignore[misc]
        assert service.seen == [NOT_SERVING, SERVING, NOT_SERVING]
    # The model is known now: a request waits for a group.
    assert code_of(lambda: generate(1)) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert [services.pop(name).stop() for name in ("gateway", "scheduler")] == [0, 0]
