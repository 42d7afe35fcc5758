"""The compose stack against the settings of the services, and against what it promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.launch import kill_after
from tests.deploy.settings import ALL, variables

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
TEXT = (DEPLOY / "docker-compose.yml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
EXAMPLE = (DEPLOY / ".env.example").read_text(encoding="utf-8")
OURS = {
    "gateway-1": "gateway",
    "gateway-2": "gateway",
    "scheduler": "scheduler",
    "worker": "worker",
    "worker-gpu": "worker",
}


def example() -> dict[str, str]:
    """Names and values in .env.example, all commented out."""
    found = re.findall(r"(?m)^#([A-Z_]+)=(.*)$", EXAMPLE)
    assert len(found) == len(dict(found)), "a name stands there twice"
    return dict(found)


def environment(service: str) -> dict[str, Any]:
    return {
        name: value for name, value in SERVICES[service]["environment"].items() if name.startswith("ALBIREO_")
    }


@pytest.mark.parametrize("service", OURS)
def test_a_service_gets_every_setting_it_has_and_no_other(service: str) -> None:
    known = set(variables(OURS[service]))
    assert known <= set(environment(service))
    assert set(environment(service)) <= known


def test_the_example_has_every_setting_that_the_stack_passes_on() -> None:
    passed = {name for service in OURS for name, value in environment(service).items() if value is None}
    assert {name for name in example() if name.startswith("ALBIREO_")} == passed


def test_the_example_gives_the_defaults() -> None:
    for name, value in example().items():
        if name in ALL:
            default = ALL[name].default
            shown = "" if default is None else str(default)
            shown = shown.lower() if isinstance(default, bool) else shown
            assert value == shown or (isinstance(default, float) and float(value) == default), name
        elif name.startswith("STACK_"):
            assert set(re.findall(rf"\$\{{{name}:-([^}}]*)\}}", TEXT)) == {value}, name
        else:
            assert name in {"COMPOSE_PROFILES", "CUDA_VISIBLE_DEVICES"}


def test_the_example_has_every_variable_of_the_stack_and_explains_each() -> None:
    used = set(re.findall(r"\$\{(\w+)", TEXT))
    assert used == {name for name in example() if name.startswith("STACK_")}
    lines = EXAMPLE.splitlines()
    for number, line in enumerate(lines):
        if re.match(r"#[A-Z_]+=", line):
            assert lines[number - 1].startswith("# "), line


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_locked_down(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["restart"] == ("no" if name == "password" else "unless-stopped")


def test_what_is_published_is_on_loopback() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    for port in ports:
        assert port.startswith(("127.0.0.1:", "${STACK_ADDRESS:-127.0.0.1}:"))


def test_nothing_that_a_worker_holds_keeps_a_second_one_out() -> None:
    for worker in (SERVICES["worker"], SERVICES["worker-gpu"]):
        assert not {"container_name", "hostname", "ports"} & set(worker)
        for volume in worker["volumes"]:
            assert volume["read_only"] if isinstance(volume, dict) else volume.endswith(":ro")
        networks = worker["networks"]
        addresses = networks.values() if isinstance(networks, dict) else ()
        assert not any("ipv4_address" in (network or {}) for network in addresses)
    assert example()["ALBIREO_GROUP"] == "", "groups of one name"


def test_prometheus_finds_every_rank_of_every_group() -> None:
    config = yaml.safe_load((DEPLOY / "observability" / "prometheus.yml").read_text(encoding="utf-8"))
    [job] = [job for job in config["scrape_configs"] if job["job_name"] == "worker"]
    first = int(environment("worker")["ALBIREO_WORKER_METRICS_PORT"])
    ranks = int(example()["STACK_TP"])
    assert [(found["names"], found["type"], found["port"]) for found in job["dns_sd_configs"]] == [
        (["worker"], "A", first + rank) for rank in range(ranks)
    ]


def test_a_worker_has_more_time_to_stop_than_a_rank_that_does_not_react() -> None:
    grace = float(example()["STACK_WORKER_GRACE"].removesuffix("s"))
    assert grace > kill_after(SERVICES["worker"]["command"])


def test_a_gateway_has_more_time_to_stop_than_its_drain_takes() -> None:
    drain = ALL["ALBIREO_GATEWAY_DRAIN_SECONDS"].default
    assert float(example()["STACK_GATEWAY_GRACE"].removesuffix("s")) > drain + 5
