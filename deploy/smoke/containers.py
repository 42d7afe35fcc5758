"""The containers of the running stack, by the Docker command line. Every check acts on them with it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

COMPOSE_FILE = Path(__file__).parents[1] / "docker-compose.yml"
RANK_COMMAND = "albireo worker"
LAUNCHERS = ("torchrun", "timeout")
"""Their command lines end with that of a rank."""


class Failed(RuntimeError):
    """A check failed, or a command of Docker."""


def docker(*arguments: str, timeout: float = 60.0) -> str:
    """Output of a docker command, which may take ``timeout`` seconds. Raises Failed."""
    command = ["docker", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(command)}: not done after {timeout:.0f} s") from None
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def compose(*arguments: str, timeout: float = 60.0) -> str:
    files = [] if "COMPOSE_FILE" in os.environ else ["--file", str(COMPOSE_FILE)]
    return docker("compose", *files, *arguments, timeout=timeout)


def scale(service: str, number: int, *, timeout: float) -> None:
    """Starts or stops containers of a service until ``number`` run; waits until these are healthy."""
    options = ["--detach", "--no-build", "--no-deps", "--no-recreate", *(["--wait"] if number else [])]
    compose("up", *options, "--scale", f"{service}={number}", service, timeout=timeout)


def containers_of(service: str) -> list[str]:
    return compose("ps", "--quiet", service).split()


def container_of(service: str) -> str:
    found = containers_of(service)
    if len(found) != 1:
        raise Failed(f"{service}: {len(found)} containers run, not one")
    return found[0]


def state_of(container: str) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(docker("inspect", "--format", "{{json .State}}", container))
    return state


def first_process(container: str) -> int:
    """Its id on this machine."""
    return int(state_of(container)["Pid"])


def last_rank(container: str) -> int:
    """Id, on this machine, of the process of the last of at least two ranks."""
    lines = docker("top", container, "-eo", "pid,args").splitlines()
    ranks = [
        line
        for line in lines
        if line.endswith(RANK_COMMAND) and not any(launcher in line for launcher in LAUNCHERS)
    ]
    if len(ranks) < 2:
        raise Failed(f"worker: {len(ranks)} ranks run")
    return int(ranks[-1].split()[0])


def wait_back(container: str, before: dict[str, Any], *, deadline: float) -> None:
    """Until the container has started again and is healthy, ``deadline`` (monotonic) at the latest."""
    while True:
        state = state_of(container)
        again = state["StartedAt"] != before["StartedAt"]
        if again and state["Running"] and state.get("Health", {}).get("Status") == "healthy":
            return
        if time.monotonic() > deadline:
            raise Failed(f"not started again and healthy in time: {state}")
        time.sleep(0.1)
