"""Commands and the client library before a stack that asks for a key and for TLS."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from albireo.client import Access, Client
from albireo.models import TINY
from albireo.v1 import inference_pb2
from tests.stack import Running, running_stack, wait_for

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
def access_of(certs: Path) -> Callable[[str], Access]:
    """How the holder of a key gets in."""
    files: dict[str, Any] = {
        "tls_ca": certs / "ca.pem",
        "tls_cert": certs / "client.pem",
        "tls_key": certs / "client.key",
    }
    return lambda key: Access(api_key=key, **files)


@pytest.fixture
def target(guarded: Running) -> str:
    return f"localhost:{guarded.stack.target.rpartition(':')[2]}"


def test_the_library_gets_in_with_key_and_certificate(
    target: str, access_of: Callable[[str], Access], key: str
) -> None:
    with Client(target, access_of(key)) as client:
        events = list(client.generate("What is 37 + 45?", temperature=0, max_tokens=8))
        assert events[-1].HasField("finished")
        assert client.load().slots_total > 0
        assert not client.cancel("unknown")
        assert client.detokenize(client.tokenize("Hi")) == "Hi"
    for wrong in ("", key[:-1] + "x"):
        with Client(target, access_of(wrong)) as client, pytest.raises(grpc.RpcError) as refused:
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


def refusal_of(client: Client) -> tuple[str, float] | None:
    """Has two streams at once: why one is refused, and in how many seconds to come back. None if both run."""
    streams: list[Iterator[inference_pb2.GenerateEvent]] = []
    try:
        for _ in range(2):
            streams.append(client.generate("Tell me a story.", max_tokens=400, ignore_eos=True))
            next(streams[-1])
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        headers = {item.key: item.value for item in error.trailing_metadata()}
        return str(error.details()), int(headers["grpc-retry-pushback-ms"]) / 1000
    return None  # leaving the streams cancels them


def test_quotas_hold_for_their_tenant_and_no_other(
    target: str, access_of: Callable[[str], Access], key: str, data: Path
) -> None:
    made = albireo("keys", "create", "--tenant", "metered", "--data-dir", str(data))
    assert made.returncode == 0, made.stderr

    def retry_seconds(quota: str, *options: str) -> float:
        """After which the tenant with these quotas may come back, by a refusal that names ``quota``. The
        gateway follows within a second or so."""
        done = albireo("tenants", "set", "metered", *options, "--data-dir", str(data))
        assert done.returncode == 0, done.stderr
        found: list[float] = []

        def refused() -> bool:
            refusal = refusal_of(metered)
            if refusal is not None and refusal[0] == f"quota: {quota}":
                found.append(refusal[1])
            return bool(found)

        wait_for(refused, 20, f"{quota}: is not held")
        assert refusal_of(other) is None
        return found[0]

    with (
        Client(target, access_of(made.stdout.strip())) as metered,
        Client(target, access_of(key)) as other,
    ):
        wait_for(lambda: admits(metered), 20, "the new key does not count")
        at_once = 'max_requests of tenant "metered" (1 at once)'
        assert retry_seconds(at_once, "--max-requests", "1") == 0.25
        a_minute = 'tokens_per_minute of tenant "metered" (30 a minute)'
        # Longer than a minute where what was running has used more than the tokens of one.
        assert retry_seconds(a_minute, "--max-requests", "0", "--tokens-per-minute", "30") > 0.25


def admits(client: Client) -> bool:
    """Whether the gateway knows the client's key."""
    try:
        client.server_info()
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
            raise
        return False
    return True
