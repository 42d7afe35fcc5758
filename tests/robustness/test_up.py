"""``albireo up`` that does not come up: one line that says why, of this start alone, and status 1."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from albireo.models import TINY

UP = (sys.executable, "-m", "albireo.cli", "up")
ROOT = TINY.parents[2]


def started(directory: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    """From another directory, as a user has it."""
    return subprocess.Popen(
        [*UP, "--port", "0", "--data-dir", str(directory / "data"), *options],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def failure(process: subprocess.Popen[str]) -> str:
    """Its one line, without those of the tiers that came up before."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert out == ""
    *before, last = err.splitlines()
    assert all(" is up after " in line for line in before), err
    return last


def broken(directory: Path, **config: object) -> Path:
    """A copy of the bundled model with another config."""
    model = directory / "broken [x]"
    shutil.copytree(TINY, model)
    found = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**found, **config}))
    return model


def child(process: subprocess.Popen[str], name: str, log: Path) -> int:
    """Pid of a tier once it has begun to run."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            for pid in (task / "children").read_text().split():
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if name.encode() in arguments and log.exists():
                    return int(pid)
        time.sleep(0.02)
    raise AssertionError(f"no {name}")


@pytest.mark.slow
def test_the_line_is_what_a_rank_reports_about_its_checkpoint(tmp_path: Path) -> None:
    model = broken(tmp_path, architectures=["GPT2LMHeadModel"], model_type="gpt2")
    line = failure(started(tmp_path, "--model", str(model), "--tp", "2"))
    assert line.startswith("albireo: g0 failed to start: g0-rank-")
    assert "Traceback" not in line
    assert f"{model}/config.json: " in line
    assert "GPT2LMHeadModel" in line
    assert str(tmp_path / "data" / "logs") in line


def test_a_killed_rank_is_reported_with_its_signal_and_no_earlier_runs_error(tmp_path: Path) -> None:
    logs = tmp_path / "data" / "logs"
    logs.mkdir(parents=True)
    (logs / "g0-rank-0.log").write_text("g0-rank-0: what was wrong yesterday\n")
    process = started(tmp_path)  # the bundled model, from a directory that does not have it
    os.kill(child(process, "worker", logs / "gateway.log"), signal.SIGKILL)
    line = failure(process)
    assert "g0-rank-0 was ended by SIGKILL" in line
    assert "memory" in line
    assert "yesterday" not in line


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("Qwen/Qwen2.5-0.5B", ": no such directory; is it a name on a hub? Download it first: hf download "),
        ("empty", "/config.json: no such file (the directory is empty); download the whole checkpoint"),
        ("model.gguf", ": a GGUF file; --model names a directory with config.json and "),
    ],
)
def test_a_model_that_is_no_checkpoint_is_reported_at_once(tmp_path: Path, model: str, why: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    line = failure(started(tmp_path, "--model", model))
    assert line.startswith(f"albireo: --model {model}{why}")


def test_an_option_of_a_service_that_is_wrong_is_named(tmp_path: Path) -> None:
    line = failure(started(tmp_path, ALBIREO_SCHEDULER_PREFILL_CHUNK="0"))
    assert "scheduler failed to start" in line
    assert "--prefill-chunk" in line


def test_an_unusable_data_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    line = failure(started(tmp_path))
    assert str(tmp_path / "data") in line
    assert "--data-dir" in line


@pytest.mark.parametrize("url", ["nonsense", "redis://127.0.0.1:1/0"])
def test_an_unusable_redis_is_named(tmp_path: Path, url: str) -> None:
    assert "edis" in failure(started(tmp_path, "--redis-url", url))


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f":{port}: " in failure(started(tmp_path, "--port", port))


def test_an_interrupt_while_it_starts_stops_everything(tmp_path: Path) -> None:
    process = started(tmp_path)
    pid = child(process, "worker", tmp_path / "data/logs/gateway.log")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT
    assert err.splitlines()[-1] == "albireo: stopped before it served"
    assert not Path(f"/proc/{pid}").exists()


def test_a_stack_that_others_could_reach_needs_a_key(tmp_path: Path) -> None:
    line = failure(started(tmp_path, "--host", "0.0.0.0"))
    assert line.startswith(
        "albireo: gateway failed to start: gateway: no API key: create one (albireo keys create "
    )
    assert "reaches 0.0.0.0 (--open)" in line


def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    line = failure(started(tmp_path, "--tls-cert", "gone.pem", "--tls-key", "gone.key"))
    assert "gone.pem: No such file" in line
