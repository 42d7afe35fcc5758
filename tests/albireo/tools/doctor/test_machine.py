"""Ports and limits of this machine."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

from albireo.local.ports import free_port
from albireo.runtime.process import HealthServer
from albireo.tools.doctor.limits import SPARE_FILES, check_files, check_shared_memory
from albireo.tools.doctor.ports import check_port, check_ports, ports_of
from gateway.settings import GatewaySettings
from worker_svc.runner.main_memory import available_memory
from worker_svc.runner.main_memory import cgroup_memory as cgroup

LISTEN = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
input()
"""


def test_a_free_port_is_free_and_stays_so() -> None:
    port = free_port("127.0.0.1")
    assert check_port("X", "127.0.0.1", port).level == "ok"
    assert check_port("X", "127.0.0.1", port).level == "ok"


def test_a_taken_port_names_who_has_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        found = check_port("ALBIREO_GATEWAY_PORT", "0.0.0.0", port)
        process.kill()
    assert found.level == "failure"
    assert f"process {process.pid} (" in found.found
    assert "ALBIREO_GATEWAY_PORT" in found.advice


def test_a_service_that_runs_there_is_told_and_no_failure() -> None:
    server = HealthServer("127.0.0.1", 0)
    try:
        found = check_port("X", "127.0.0.1", server.port)
    finally:
        server.stop()
    assert (found.level, "NOT_SERVING" in found.found) == ("note", True)


def test_an_address_of_another_machine_is_a_failure() -> None:
    assert check_port("X", "203.0.113.9", 50051).level == "failure"
    assert check_port("X", "no-such-host.invalid", 50051).level == "failure"


def test_two_services_of_one_port_are_a_failure() -> None:
    port = free_port("127.0.0.1")
    one, two = check_ports([("A", "127.0.0.1", port), ("B", "127.0.0.1", port)])
    assert (one.level, two.level) == ("ok", "failure")
    assert "A and B" in two.found


def test_ports_are_those_of_the_settings_and_0_is_none() -> None:
    settings = GatewaySettings.model_validate({"model": "m", "port": 4242})
    assert list(ports_of("gateway", settings)) == [("ALBIREO_GATEWAY_PORT", "127.0.0.1", 4242)]
    assert list(ports_of("gateway", GatewaySettings.model_validate({"model": "m", "port": 0}))) == []


def test_open_files_are_compared_with_streams() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert check_files(max(1, soft - SPARE_FILES)).level == "ok"
    found = check_files(soft)
    assert found.level == "warning"
    assert f"ulimit -n {soft + SPARE_FILES}" in found.advice


def test_shared_memory_matters_to_nccl_only() -> None:
    assert "not needed" in check_shared_memory("cpu", 4).found
    assert "not needed" in check_shared_memory("cuda", 1).found
    assert "free in /dev/shm" in check_shared_memory("cuda", 2).found


def test_memory_is_what_machine_and_container_leave(tmp_path: Path) -> None:
    machine = available_memory()
    assert machine is not None
    assert 0 < machine < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert cgroup(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("300\n")
    assert cgroup(tmp_path) == 700
    (tmp_path / "memory.max").write_text("max\n")
    assert cgroup(tmp_path) is None


def test_a_port_is_not_taken_by_a_connection_that_just_ended() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()  # this end goes first, and lingers
    assert check_port("X", "127.0.0.1", port).level == "ok"
