"""`albireo doctor` as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from albireo.models import TINY

ROOT = TINY.parents[2]
NO_TORCH = "import sys; sys.modules['torch'] = None; from albireo.cli import main; main()"


def doctor(
    *options: str, code: str = "from albireo.cli import main; main()", **environment: str
) -> subprocess.CompletedProcess[str]:
    # No fixed ports: another stack may run on this machine.
    own = {f"ALBIREO_{name}_PORT": "0" for name in ("GATEWAY", "SCHEDULER", "WORKER")}
    own["ALBIREO_GATEWAY_MAX_STREAMS"] = "100"  # whatever this machine's limit on open files
    return subprocess.run(
        [sys.executable, "-c", code, "doctor", *options],
        env={**os.environ, **own, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_good_configuration_is_status_0(redis_url: str) -> None:
    options = ["--model", str(TINY), "--redis-url", redis_url, "--dtype", "float32"]
    done = doctor(*options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failures, 0 warnings" in done.stdout
    for check in ("redis persistence", "clock", "two ranks", "model tensors", "kv blocks", "memory"):
        assert f"ok       {check}: " in done.stdout


def test_without_torch_it_goes_on(redis_url: str) -> None:
    done = doctor("--json", "--model", str(TINY), "--redis-url", redis_url, code=NO_TORCH)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    found = {finding["check"]: finding for finding in report["findings"]}
    assert found["torch"]["level"] == "note"
    assert "worker machines only" in found["torch"]["found"]
    assert found["model weights"]["level"] == found["tokenizer"]["level"] == "ok"
    assert "memory" not in found
    assert (report["failures"], report["warnings"]) == (0, 0)


def test_a_torch_that_does_not_load_is_a_failure(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so: cannot open shared object file')")
    done = doctor("--model", str(TINY), "--redis-url", redis_url, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.returncode == 1
    assert "failure  torch: does not load: libcudart.so" in done.stdout


def test_the_services_variables_count_and_each_failure_is_told(tmp_path: Path, redis_url: str) -> None:
    done = doctor(
        "--json",
        ALBIREO_WORKER_MODEL=str(tmp_path / "none"),
        ALBIREO_REDIS_URL=redis_url,
        ALBIREO_GATEWAY_MAX_QUEUE="0",
        ALBIREO_SCHEDULER_MAX_NUM_BATCHED_TOKENS="10",
        ALBIREO_WORKER_PORT="1",
        code=NO_TORCH,
    )
    assert done.returncode == 1
    report = json.loads(done.stdout)
    failed = [finding for finding in report["findings"] if finding["level"] == "failure"]
    lines = "\n".join(finding["found"] for finding in failed)
    assert report["failures"] == len(failed)
    assert "ALBIREO_GATEWAY_MAX_QUEUE: " in lines
    assert "max_num_batched_tokens must be at least max_num_seqs" in lines
    assert f"{tmp_path / 'none'}: no such directory" in lines


def test_a_redis_that_is_not_there_is_status_1_and_a_line() -> None:
    done = doctor("--model", str(TINY), "--redis-url", "redis://127.0.0.1:1/0", code=NO_TORCH)
    assert done.returncode == 1
    assert "failure  redis: redis://127.0.0.1:1/0 does not answer: " in done.stdout
    assert "         -> start it" in done.stdout
    assert "Traceback" not in done.stderr
