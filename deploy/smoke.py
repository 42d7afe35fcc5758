"""Kills every container of a running compose stack in turn, and measures how long until it serves again.

    docker compose -f deploy/docker-compose.yml up -d --build --wait
    python deploy/smoke.py

Needs the Docker command line and the right to signal processes of containers (root, on the machine that runs
them): Docker does not restart a container that `docker kill` ended, so its first process is killed instead,
as in a crash. The exit status is 1 where an answer does not come, a container does not come back, or an error
in between is not clear: UNAVAILABLE or retryable, with a message.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from rich.console import Console
from rich.table import Table

from albireo import DEFAULT_TARGET
from albireo.client import request_for
from albireo.v1 import inference_pb2_grpc

COMPOSE_FILE = Path(__file__).with_name("docker-compose.yml")
RANK = "worker, one rank"
VICTIMS = ("gateway-1", "gateway-2", "scheduler", "worker", RANK, "redis", "proxy")
PROMPT = "What is 37 + 45?"
STORY = "Tell me a story about a fox."
STORIES = 2
"""Long streams that run when a container is killed: one on each gateway."""
STORY_TOKENS = 900
IN_A_ROW = 20
"""Successful answers in a row, to questions sent after the container was healthy, that end a measurement."""
BACK_SECONDS = 120.0
CALL_SECONDS = 15.0


class Failed(RuntimeError):
    """A check failed, or a command of Docker."""


def docker(*arguments: str) -> str:
    """Output of a docker command. Raises Failed."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise Failed(f"docker {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def compose(*arguments: str) -> str:
    files = [] if "COMPOSE_FILE" in os.environ else ["--file", str(COMPOSE_FILE)]
    return docker("compose", *files, *arguments)


def container_of(service: str) -> str:
    found = compose("ps", "--quiet", service).split()
    if len(found) != 1:
        raise Failed(f"{service}: {len(found)} containers run, not one")
    return found[0]


def state_of(container: str) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(docker("inspect", "--format", "{{json .State}}", container))
    return state


@dataclass(slots=True)
class Outcome:
    """One request: when it was sent and ended (monotonic seconds), and its error, if any."""

    sent: float
    ended: float = 0.0
    tokens: int = 0
    error: str = ""
    clear: bool = True


def ask(target: str, prompt: str, *, timeout: float, **options: Any) -> Outcome:
    """Streams one answer to its end, over a connection of its own."""
    outcome = Outcome(time.monotonic())
    finished = False
    request = request_for(prompt, temperature=0, **options)
    with grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            for event in inference_pb2_grpc.InferenceStub(channel).Generate(request, timeout=timeout):
                outcome.tokens += len(event.tokens.ids)
                finished = finished or event.HasField("finished")
                if event.HasField("error"):
                    outcome.error = f"Error: {event.error.message}"
                    outcome.clear = event.error.retryable and bool(event.error.message)
        except grpc.RpcError as error:
            outcome.error = f"{error.code().name}: {error.details()}"
            outcome.clear = error.code() is grpc.StatusCode.UNAVAILABLE and bool(error.details())
    outcome.ended = time.monotonic()
    if not outcome.error and not finished:
        outcome.error, outcome.clear = "the stream ended without a last event", False
    return outcome


@dataclass(slots=True)
class Probe:
    """Sends one short question after the other, until ``stop`` is set. ``run`` is the body of a thread."""

    target: str
    outcomes: list[Outcome] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stop.is_set():
            self.outcomes.append(ask(self.target, PROMPT, max_tokens=4, timeout=CALL_SECONDS))
            self.stop.wait(0.05)

    def good_since(self, moment: float) -> int:
        """Number of successful answers at the end of the list, to questions sent after ``moment``."""
        count = 0
        for outcome in reversed(self.outcomes):
            if outcome.error or outcome.sent < moment:
                break
            count += 1
        return count


@dataclass(slots=True)
class Kill:
    """The effects of one kill; times in seconds after it."""

    victim: str
    served_again: float
    healthy_again: float
    failed: Counter[str]
    unclear: list[str]
    streams: list[str]


def pid_of(victim: str, container: str) -> int:
    """On this machine: the container's first process, or one of the ranks in it."""
    if victim != RANK:
        return int(state_of(container)["Pid"])
    lines = docker("top", container, "-eo", "pid,args").splitlines()
    ranks = [line for line in lines if line.endswith("albireo worker") and "torchrun" not in line]
    if len(ranks) < 2:
        raise Failed(f"worker: {len(ranks)} ranks run")
    return int(ranks[-1].split()[0])


def wait_back(container: str, before: dict[str, Any], deadline: float) -> None:
    """Until the container has started again and is healthy."""
    while True:
        state = state_of(container)
        again = state["StartedAt"] != before["StartedAt"]
        if again and state["Running"] and state.get("Health", {}).get("Status") == "healthy":
            return
        if time.monotonic() > deadline:
            raise Failed(f"not healthy {BACK_SECONDS:.0f} s after it was killed: {state}")
        time.sleep(0.1)


def kill(target: str, victim: str) -> Kill:
    """Kills one container, or one rank, while a stream runs and short requests come one after the other."""
    container = container_of(victim.split(",")[0])
    before, pid = state_of(container), pid_of(victim, container)
    probe = Probe(target)
    stories: list[Outcome] = []

    def stream() -> None:
        stories.append(ask(target, STORY, ignore_eos=True, max_tokens=STORY_TOKENS, timeout=BACK_SECONDS))

    threads = [threading.Thread(target=run, daemon=True) for run in [probe.run, *[stream] * STORIES]]
    for thread in threads:
        thread.start()
    time.sleep(2)
    if any(outcome.error for outcome in probe.outcomes):
        raise Failed(f"before {victim} was killed: {probe.outcomes}")
    killed = time.monotonic()
    deadline = killed + BACK_SECONDS
    os.kill(pid, signal.SIGKILL)
    wait_back(container, before, deadline)
    healthy = time.monotonic()
    while probe.good_since(healthy) < IN_A_ROW:
        if time.monotonic() > deadline:
            raise Failed(f"{victim}: no {IN_A_ROW} answers in a row: {probe.outcomes[-1]}")
        time.sleep(0.05)
    probe.stop.set()
    for thread in threads:
        thread.join(timeout=BACK_SECONDS)
    bad = [outcome for outcome in probe.outcomes if outcome.error]
    last_bad = max((outcome.ended for outcome in bad), default=killed)
    served = min(o.ended for o in probe.outcomes if not o.error and o.ended > max(last_bad, killed))
    return Kill(
        victim,
        served - killed,
        healthy - killed,
        Counter(outcome.error for outcome in bad),
        [outcome.error for outcome in [*bad, *stories] if not outcome.clear],
        [story.error or f"whole, {story.tokens} tokens" for story in stories],
    )


def image_table() -> Table:
    table = Table("service", "image", "MB", title="images")
    for row in sorted(
        json.loads(compose("images", "--format", "json")), key=lambda row: row["ContainerName"]
    ):
        name = f"{row['Repository']}:{row['Tag']}"
        table.add_row(row["ContainerName"], name, f"{row['Size'] / 1e6:.0f}")
    return table


def kill_table(kills: list[Kill]) -> Table:
    table = Table(
        "killed", "served again, s", "healthy again, s", "short requests that failed", "streams that ran"
    )
    for one in kills:
        failed = "\n".join(f"{count} x {error}" for error, count in one.failed.items()) or "none"
        streams = "\n".join(one.streams)
        table.add_row(one.victim, f"{one.served_again:.1f}", f"{one.healthy_again:.1f}", failed, streams)
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--target", default=DEFAULT_TARGET, help="the published port, host:port")
    parser.add_argument("--victims", nargs="*", choices=VICTIMS, default=VICTIMS, help="what is killed")
    options = parser.parse_args()
    console = Console(width=160)
    try:
        answer = ask(options.target, STORY, timeout=CALL_SECONDS)
        if answer.error or not answer.tokens:
            raise Failed(f"no answer through the stack: {answer}")
        console.print(f"an answer of {answer.tokens} tokens in {answer.ended - answer.sent:.2f} s")
        kills = []
        for victim in options.victims:
            kills.append(kill(options.target, victim))
            console.print(f"{victim}: served again after {kills[-1].served_again:.1f} s")
        console.print(image_table(), kill_table(kills))
        unclear = {one.victim: one.unclear for one in kills if one.unclear}
        if unclear:
            raise Failed(f"errors that are not clear: {unclear}")
    except Failed as error:
        console.print(f"FAILED: {error}", style="red", highlight=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
