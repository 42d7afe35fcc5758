"""The password of Redis and the authority of its certificate, from files into every connection."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import redis
import yaml
from pydantic import ValidationError

from albireo.local.ports import free_port
from albireo.local.redis_server import find_server
from albireo.local.settings import StackSettings
from albireo.models import TINY
from albireo.runtime.redis_address import MAX_BYTES, cell_name, read_password, redis_address, with_password
from albireo.store.connection import connect
from albireo.tools.doctor.examine import examine
from gateway.service import Gateway
from gateway.settings import GatewaySettings
from gateway.store.api_keys import RedisApiKeys
from scheduler_svc.settings import SchedulerSettings
from tests.tls_relay import tls_relay

ROOT = Path(__file__).resolve().parents[3]
PASSWORD = "a/b:c@d e?#%20 ü"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL, without the password, of a real Redis that asks for one."""
    port = free_port("127.0.0.1")
    directory = tmp_path_factory.mktemp("guarded")
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", PASSWORD]
    server = subprocess.Popen([find_server(), *arguments, "--dir", str(directory)], stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port, password=PASSWORD, socket_timeout=2)
    deadline = time.monotonic() + 15
    while True:
        try:
            client.ping()
            break
        except redis.RedisError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    client.close()
    yield f"redis://127.0.0.1:{port}/0"
    server.terminate()
    server.wait(timeout=10)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n", encoding="utf-8")
    return path


def test_a_service_connects_with_the_password_in_the_file(guarded: str, file: Path) -> None:
    settings = SchedulerSettings.model_validate({"redis_url": guarded, "redis_password_file": file})
    file.unlink()  # read once, at the start
    with connect(settings.redis_address) as client:
        assert client.ping()
    assert PASSWORD not in repr(settings)
    with connect(guarded) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_doctor_connects_with_it_and_does_not_show_it(guarded: str, file: Path) -> None:
    options = {"redis_url": guarded, "redis_password_file": file, "model": TINY}
    first = next(finding for finding in examine(options, tp=1) if finding.check.startswith("redis"))
    assert (first.level, first.found) == ("ok", f"answers at {guarded}")


def test_a_gateway_connects_with_it_too(guarded: str, file: Path) -> None:
    settings = GatewaySettings.model_validate(
        {"redis_url": guarded, "redis_password_file": file, "model": TINY, "port": 0}
    )

    async def started() -> int:
        gateway = Gateway(settings)
        await gateway.start()
        await gateway.stop()
        return gateway.port

    assert asyncio.run(started()) > 0


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h:1/2", "redis://:p%2F%40@h:1/2"),
        ("rediss://user@h:1/2?ssl_cert_reqs=none", "rediss://user:p%2F%40@h:1/2?ssl_cert_reqs=none"),
        ("unix:///run/r.sock?db=1", "unix://:p%2F%40@/run/r.sock?db=1"),
    ],
)
def test_the_url_keeps_all_else(url: str, expected: str) -> None:
    assert with_password(url, "p/@") == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"\n", "empty"), (b"\xff", "not UTF-8"), (b"x" * (MAX_BYTES + 1), "longer than")],
)
def test_a_file_that_holds_no_password_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        read_password(path)
    assert str(path) in str(refused.value)


def test_what_is_missing_or_said_twice_is_told_with_the_settings_name(tmp_path: Path, file: Path) -> None:
    with pytest.raises(ValidationError, match=r"redis_password_file: .*gone: No such file"):
        SchedulerSettings.model_validate({"redis_password_file": tmp_path / "gone"})
    with pytest.raises(ValidationError, match="redis_password_file: the URL of Redis has a password too"):
        SchedulerSettings.model_validate({"redis_url": "redis://:x@h/0", "redis_password_file": file})
    with pytest.raises(ValidationError, match="redis_password_file: give redis_url too"):
        StackSettings.model_validate({"redis_password_file": file})


def test_an_empty_variable_is_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALBIREO_REDIS_PASSWORD_FILE", "")
    assert SchedulerSettings.model_validate({}).redis_password_file is None


ENDS = [b"", b"\n", b"\r\n", b"\r\n\r\n", b"\n\r", b"\r"]


@pytest.mark.parametrize("end", ENDS)
def test_compose_keeps_of_a_given_file_what_the_services_read(tmp_path: Path, end: bytes) -> None:
    given, kept = tmp_path / "given", tmp_path / "kept"
    given.write_bytes(b'it\'s a \\ "secret" $HOME' + end)
    kept.mkdir()
    done = made_by_compose(given, kept)
    assert done.returncode == 0, done.stderr
    assert (kept / "redis-password").read_bytes() == read_password(given).encode()


def test_compose_refuses_a_file_with_no_password_in_it(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.write_bytes(b"\r\n")
    done = made_by_compose(given, tmp_path)
    assert (done.returncode, done.stderr) == (1, "the file of the password is empty\n")
    assert not (tmp_path / "redis-password").exists()


def made_by_compose(given: Path, kept: Path) -> subprocess.CompletedProcess[str]:
    """Runs the service ``password`` of the compose stack, here."""
    stack = yaml.safe_load((ROOT / "deploy" / "docker-compose.yml").read_text(encoding="utf-8"))
    [script] = stack["services"]["password"]["command"]
    script = script.replace("$$", "$").replace("/run/secrets/redis_password", str(given))
    return subprocess.run(
        ["sh", "-ec", script.replace("/run/albireo", str(kept))], capture_output=True, text=True, timeout=10
    )


@pytest.mark.parametrize("end", ENDS)
def test_redis_on_kubernetes_is_given_what_the_services_read(tmp_path: Path, end: bytes) -> None:
    given, kept = tmp_path / "password", tmp_path / "auth.conf"
    given.write_bytes(b'a \\ "secret"' + end)
    manifest = (ROOT / "deploy" / "kubernetes" / "base" / "redis.yaml").read_text(encoding="utf-8")
    [line] = re.findall(r"printf 'requirepass.*", manifest)
    [probe] = re.findall(r'REDISCLI_AUTH=("\S.*?") redis-cli', manifest)
    script = f"{line}; printf %s {probe}".replace("/run/albireo/redis/password", str(given))
    done = subprocess.run(
        ["sh", "-ec", script.replace("/tmp/auth.conf", str(kept))],
        capture_output=True,
        check=True,
        timeout=10,
    )
    assert done.stdout.decode() == read_password(given)
    assert kept.read_text(encoding="utf-8") == 'requirepass "a \\\\ \\"secret\\""\n'


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Directories with certificates of two authorities."""
    made = [tmp_path_factory.mktemp(name) for name in ("ours", "theirs")]
    for directory in made:
        subprocess.run(["sh", ROOT / "deploy" / "dev_certs.sh", directory], check=True, timeout=60)
    return made[0], made[1]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made with openssl")
def test_services_reach_a_redis_with_tls_whose_authority_they_know(
    redis_server: str, authorities: tuple[Path, Path]
) -> None:
    ours, theirs = authorities
    with tls_relay(urlsplit(redis_server).path, ours / "server.pem", ours / "server.key") as port:
        url = f"rediss://localhost:{port}/0"
        address = SchedulerSettings.model_validate(
            {"redis_url": url, "redis_ca_file": ours / "ca.pem"}
        ).redis_address
        with connect(address) as client:
            assert client.ping()

        async def versions() -> None:
            keys = RedisApiKeys(address)
            await keys.version()
            await keys.close()

        asyncio.run(versions())
        for unknown in (url, redis_address(url, None, theirs / "ca.pem")):
            with connect(unknown) as client, pytest.raises(redis.ConnectionError, match="certificate verify"):
                client.ping()


def test_an_authority_needs_a_url_with_tls_and_a_file(tmp_path: Path, file: Path) -> None:
    with pytest.raises(ValidationError, match="redis_ca_file: the URL of Redis must begin with rediss://"):
        SchedulerSettings.model_validate({"redis_url": "redis://h/0", "redis_ca_file": file})
    with pytest.raises(ValidationError, match=r"redis_ca_file: .*gone: No such file"):
        SchedulerSettings.model_validate({"redis_url": "rediss://h/0", "redis_ca_file": tmp_path / "gone"})
    assert redis_address("rediss://u@h/0?db=1", file, file).endswith(f"?db=1&ssl_ca_certs={quote(str(file))}")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://redis:6379/0", "redis:6379/0"),
        ("rediss://user:secret@redis:6379/1?ssl_ca_certs=/ca", "redis:6379/1"),
        ("unix:///run/redis.sock?db=1&password=secret", "/run/redis.sock/1"),
        ("unix:///run/redis.sock", "/run/redis.sock/0"),
        ("redis://Redis", "redis:6379/0"),
        ("redis://redis?db=1", "redis:6379/1"),
    ],
)
def test_a_cell_is_named_by_where_its_redis_is(url: str, name: str) -> None:
    assert cell_name(url) == name
