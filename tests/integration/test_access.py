"""Commands and the client library before a stack that asks for a key and for TLS."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from albireo.client import Access, Client
from albireo.models import TINY
from tests.stack import Running, running_stack

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made with openssl")
ROOT = TINY.parents[2]


def albireo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "albireo.cli", *arguments],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certs")
    subprocess.run(["sh", ROOT / "deploy" / "dev_certs.sh", directory], check=True, timeout=60)
    return directory


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guarded")


@pytest.fixture(scope="module")
def key(data: Path) -> str:
    """Made before the stack runs, as one on all addresses needs it."""
    made = albireo("keys", "create", "--tenant", "acme", "--data-dir", str(data))
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


@pytest.fixture(scope="module")
def guarded(data: Path, certs: Path, key: str) -> Iterator[Running]:
    files: dict[str, Any] = {
        "tls_cert": certs / "server.pem",
        "tls_key": certs / "server.key",
        "tls_client_ca": certs / "ca.pem",
    }
    with running_stack(data, host="0.0.0.0", **files) as running:
        yield running


@pytest.fixture
def target(guarded: Running) -> str:
    return f"localhost:{guarded.stack.target.rpartition(':')[2]}"


def test_the_library_gets_in_with_key_and_certificate(target: str, certs: Path, key: str) -> None:
    files: dict[str, Any] = {
        "tls_ca": certs / "ca.pem",
        "tls_cert": certs / "client.pem",
        "tls_key": certs / "client.key",
    }
    with Client(target, Access(api_key=key, **files)) as client:
        events = list(client.generate("What is 37 + 45?", temperature=0, max_tokens=8))
        assert events[-1].HasField("finished")
        assert client.load().slots_total > 0
        assert not client.cancel("unknown")
        assert client.detokenize(client.tokenize("Hi")) == "Hi"
    for access in (Access(**files), Access(api_key=key[:-1] + "x", **files)):
        with Client(target, access) as client, pytest.raises(grpc.RpcError) as refused:
            client.server_info()
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_commands_get_in_with_key_and_certificate(target: str, certs: Path, key: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{key}\n")
    access = {
        "ALBIREO_TARGET": target,
        "ALBIREO_TLS_CA": str(certs / "ca.pem"),
        "ALBIREO_TLS_CERT": str(certs / "client.pem"),
        "ALBIREO_TLS_KEY": str(certs / "client.key"),
    }
    with_key = {**access, "ALBIREO_API_KEY_FILE": str(tmp_path / "key")}
    done = albireo("generate", "What is 37 + 45?", "--temperature", "0", "--json", **with_key)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answers"][0]["text"]
    for command in (
        ["health"],
        ["top", "--once", "--interval", "0.1"],
        ["bench", "serve", "--num-requests", "2", "--warmup", "0", "--output-length", "fixed:4"],
    ):
        done = albireo(*command, **with_key)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    for command in (["generate", "x"], ["trace", str(tmp_path / "t.json"), "--seconds", "0.1"]):
        done = albireo(*command, **access)
        assert done.returncode == 1
        assert "UNAUTHENTICATED: a valid API key is needed" in done.stderr
    done = albireo("generate", "x", **with_key, ALBIREO_API_KEY=key)
    assert done.returncode == 2
    assert "api_key and api_key_file: give one of them" in done.stderr
    assert albireo("health", target).returncode == 1
