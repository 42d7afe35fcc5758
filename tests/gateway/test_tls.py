"""TLS and mutual TLS of a gateway's port, with certificates as `make dev-certs` makes them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from albireo.runtime.access import Access
from albireo.v1 import control_pb2 as control
from albireo.v1 import control_pb2_grpc
from gateway.settings import GatewaySettings
from gateway.tls import Certificates
from tests.gateway.conftest import Backend, Served, serving
from tests.gateway.with_keys import refusal_to_start

# grpc.aio has one poller for all loops, and it complains about those that are closed.
pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made with openssl"),
]
ROOT = Path(__file__).resolve().parents[2]


def make_certificates(directory: Path) -> Path:
    subprocess.run(["sh", ROOT / "deploy" / "dev_certs.sh", directory], check=True, timeout=60)
    return directory


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("certs"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another authority's."""
    return make_certificates(tmp_path_factory.mktemp("strangers"))


@asynccontextmanager
async def with_tls(backend: Backend, certs: Path, *, mutual: bool = False) -> AsyncIterator[Served]:
    options: dict[str, Any] = {"tls_cert": certs / "server.pem", "tls_key": certs / "server.key"}
    if mutual:
        options["tls_client_ca"] = certs / "ca.pem"
    async with serving(backend, **options) as served:
        yield served


async def reaches(served: Served, access: Access, host: str = "localhost") -> bool:
    """Whether a client gets an answer."""
    async with access.async_channel(f"{host}:{served.gateway.port}") as channel:
        stub = control_pb2_grpc.ControlStub(channel)
        try:
            answer = await stub.GetServerInfo(control.GetServerInfoRequest(), timeout=5)
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise
            return False
    return answer.api == "albireo.v1"


async def test_a_client_that_trusts_the_authority_is_served_and_no_other(
    backend: Backend, certs: Path, strangers: Path
) -> None:
    async with with_tls(backend, certs) as served:
        for host in ("localhost", "127.0.0.1"):
            assert await reaches(served, Access(tls_ca=certs / "ca.pem"), host)
        assert not await reaches(served, Access(tls_ca=strangers / "ca.pem"))
        assert not await reaches(served, Access(tls=True))
        assert not await reaches(served, Access())


async def test_with_mutual_tls_a_client_needs_a_certificate_of_the_authority(
    backend: Backend, certs: Path, strangers: Path
) -> None:
    async with with_tls(backend, certs, mutual=True) as served:
        for owner, expected in ((certs, True), (strangers, False)):
            access = Access(
                tls_ca=certs / "ca.pem", tls_cert=owner / "client.pem", tls_key=owner / "client.key"
            )
            assert await reaches(served, access) is expected
        assert not await reaches(served, Access(tls_ca=certs / "ca.pem"))


async def test_files_that_change_are_read_again_without_a_restart(
    backend: Backend, certs: Path, strangers: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("server.pem", "server.key"):
        shutil.copy(certs / name, tmp_path)
    async with with_tls(backend, tmp_path) as served:
        assert await reaches(served, Access(tls_ca=certs / "ca.pem"))
        shutil.copy(strangers / "server.pem", tmp_path)
        assert await reaches(served, Access(tls_ca=certs / "ca.pem")), "half of a pair replaces nothing"
        assert "TLS keeps the certificate that it has" in caplog.text
        shutil.copy(strangers / "server.key", tmp_path)
        assert await reaches(served, Access(tls_ca=strangers / "ca.pem"))
        assert not await reaches(served, Access(tls_ca=certs / "ca.pem"))


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (("gone", "server.key"), "gone"),
        (("server.pem", "gone"), "gone"),
        (("server.pem", "client.key"), "--tls-cert"),
        (("server.key", "server.key"), "--tls-cert"),
    ],
)
async def test_files_that_are_no_certificate_with_its_key_are_named(
    certs: Path, files: tuple[str, str], named: str
) -> None:
    with pytest.raises(ValueError, match=named) as refused:
        Certificates(certs / files[0], certs / files[1]).credentials()
    assert "\n" not in str(refused.value)


async def test_an_authority_that_is_none_is_named(certs: Path) -> None:
    with pytest.raises(ValueError, match="--tls-client-ca"):
        Certificates(certs / "server.pem", certs / "server.key", certs / "server.key").credentials()


@pytest.mark.parametrize("options", [{"tls_cert": "x"}, {"tls_key": "x"}, {"tls_client_ca": "x"}])
async def test_half_of_the_options_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="tls_"):
        GatewaySettings.model_validate({"model": ROOT, **options})


async def test_a_gateway_whose_certificate_is_missing_does_not_start(
    backend: Backend, tmp_path: Path
) -> None:
    files = {"tls_cert": tmp_path / "server.pem", "tls_key": tmp_path / "server.key"}
    assert "server.pem: No such file" in await refusal_to_start(backend, **files)
