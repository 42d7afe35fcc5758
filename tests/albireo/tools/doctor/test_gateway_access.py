"""Checks of a gateway's keys and of its certificate."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from albireo.contract.api_keys import ApiKey
from albireo.contract.keys import API_KEYS
from albireo.models import TINY
from albireo.store.api_keys import ApiKeyStore
from albireo.tools.doctor.gateway_access import DAY, check_keys, check_tls, expiry_of
from gateway.settings import GatewaySettings

ROOT = Path(__file__).resolve().parents[4]
KEY = ApiKey(digest=bytes(32), tenant="a", least_priority=0, greatest_priority=0, created_at=0)
EXPIRED = ApiKey(
    digest=bytes(32), tenant="a", least_priority=0, greatest_priority=0, created_at=0, expires_at=1
)


def settings(url: str = "redis://127.0.0.1:1/0", **options: Any) -> GatewaySettings:
    return GatewaySettings.model_validate({"model": TINY, "redis_url": url, **options})


@pytest.mark.parametrize(
    ("options", "level"),
    [({}, "ok"), ({"host": "0.0.0.0"}, "failure"), ({"host": "0.0.0.0", "open": True}, "warning")],
)
def test_without_keys_it_depends_on_who_reaches_the_gateway(
    redis_url: str, options: dict[str, object], level: str
) -> None:
    found = check_keys(settings(redis_url, **options))
    assert found.level == level
    assert ("albireo keys create" in found.advice) == (level != "ok")


def test_keys_are_counted_and_expired_ones_do_not_count(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        keys = ApiKeyStore(client)
        keys.put("0" * 16, EXPIRED)
        assert check_keys(settings(redis_url)).level == "failure"
        keys.put("1" * 16, KEY)
        found = check_keys(settings(redis_url))
        assert (found.level, found.found) == ("ok", "1 that are valid, 1 that have expired")
        client.hset(API_KEYS, "2" * 16, "{}")
        assert check_keys(settings(redis_url)).level == "warning"


def test_a_redis_that_does_not_answer_is_another_checks_finding() -> None:
    assert check_keys(settings()).level == "note"


def certificate(directory: Path, days: int) -> dict[str, Any]:
    """Signed by itself."""
    files = {"tls_cert": directory / "c.pem", "tls_key": directory / "c.key"}
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x".split()
    command += ["-days", str(days), "-keyout", str(files["tls_key"]), "-out", str(files["tls_cert"])]
    subprocess.run(command, check=True, timeout=30, stderr=subprocess.DEVNULL)
    return files


needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="certificates are made with openssl"
)


@needs_openssl
@pytest.mark.parametrize(("days", "level"), [(300, "ok"), (3, "warning"), (-1, "failure")])
def test_a_certificate_is_looked_at_for_its_end(tmp_path: Path, days: int, level: str) -> None:
    files = certificate(tmp_path, max(days, 1))
    if days < 0:
        expire(tmp_path, files)
    found = check_tls(settings(**files))
    assert found.level == level
    assert str(files["tls_cert"]) in found.found


def expire(directory: Path, files: dict[str, Path]) -> None:
    """Another certificate of the same key, which was valid in 2001."""
    (directory / "ca").mkdir()
    (directory / "index").touch()
    (directory / "conf").write_text(
        f"[ca]\ndefault_ca=d\n[d]\nnew_certs_dir={directory}/ca\ndatabase={directory}/index\nrand_serial=yes\n"
        "default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n"
    )
    request = f"openssl req -new -key {files['tls_key']} -subj /CN=x -out {directory}/csr".split()
    sign = f"openssl ca -batch -selfsign -config {directory}/conf -in {directory}/csr"
    sign += f" -keyfile {files['tls_key']}"
    sign += f" -out {files['tls_cert']} -startdate 20010101000000Z -enddate 20010201000000Z -notext"
    for command in (request, sign.split()):
        subprocess.run(command, check=True, timeout=30, stderr=subprocess.DEVNULL)


@needs_openssl
def test_the_end_is_that_of_the_servers_own_certificate(tmp_path: Path) -> None:
    subprocess.run(["sh", ROOT / "deploy" / "dev_certs.sh", tmp_path], check=True, timeout=60)
    left = expiry_of(tmp_path / "server.pem", tmp_path / "server.key") - time.time()
    assert left == pytest.approx(30 * DAY, abs=120)


@needs_openssl
def test_a_certificate_with_anothers_key_fails(tmp_path: Path) -> None:
    subprocess.run(["sh", ROOT / "deploy" / "dev_certs.sh", tmp_path], check=True, timeout=60)
    files: dict[str, Any] = {"tls_cert": tmp_path / "server.pem", "tls_key": tmp_path / "client.key"}
    assert check_tls(settings(**files)).level == "failure"
    assert check_tls(settings(**{**files, "tls_key": tmp_path / "gone"})).level == "failure"


def test_without_tls_keys_would_go_in_clear_text() -> None:
    assert check_tls(settings()).level == "ok"
    assert check_tls(settings(host="0.0.0.0")).level == "note"
