"""TLS of a gateway's port: its certificate, and whether clients need one. Read again when files change.

The server takes these credentials. gRPC calls :meth:`Certificates.changed` at each handshake, on a thread of
its own.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc

Found = TypeVar("Found")

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Certificates:
    """The files, and what was read of them last."""

    certificate: Path  # PEM: the server's own first, then those between it and the authority
    key: Path
    client_authority: Path | None = None  # PEM: clients need a certificate that it signed
    _stamps: tuple[int, ...] = ()

    def credentials(self) -> grpc.ServerCredentials:
        """Raises ValueError that names the option, where a file cannot be used."""
        stamps, configuration = self._stamp(), self._read()
        self._stamps = stamps
        return grpc.dynamic_ssl_server_credentials(
            configuration,
            self.changed,  # type: ignore[arg-type]  # None: no change
            require_client_authentication=self.client_authority is not None,
        )

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new files, for connections from now on; None where there are none, or they cannot be used."""
        try:
            stamps = self._stamp()
            if stamps == self._stamps:
                return None
            self._stamps = stamps  # also where they cannot be used: that is logged once
            configuration = self._read()
        except ValueError as error:
            logger.error("TLS keeps the certificate that it has: %s", error)
            return None
        logger.info("TLS: %s was read again", self.certificate)
        return configuration

    def _stamp(self) -> tuple[int, ...]:
        """What changes when a file does. Raises ValueError."""
        return tuple(
            _tried(option, path, lambda path: path.stat().st_mtime_ns)
            for option, path in self._files().items()
        )

    def _read(self) -> grpc.ServerCertificateConfiguration:
        """Raises ValueError. OpenSSL checks what gRPC would only report at the first connection."""
        data = {option: _tried(option, path, Path.read_bytes) for option, path in self._files().items()}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except ssl.SSLError as error:
            pair = f"{self.certificate} with {self.key}"
            raise ValueError(f"--tls-cert: {pair}: {error.reason or error}") from None
        if self.client_authority is not None:
            try:
                context.load_verify_locations(self.client_authority)
            except ssl.SSLError as error:
                raise ValueError(
                    f"--tls-client-ca: {self.client_authority}: {error.reason or error}"
                ) from None
        return grpc.ssl_server_certificate_configuration(
            [(data["--tls-key"], data["--tls-cert"])], data.get("--tls-client-ca")
        )

    def _files(self) -> dict[str, Path]:
        """By the option that names each."""
        files = {"--tls-cert": self.certificate, "--tls-key": self.key}
        return files if self.client_authority is None else {**files, "--tls-client-ca": self.client_authority}


def _tried(option: str, path: Path, use: Callable[[Path], Found]) -> Found:
    """Raises ValueError that names the option, where the file cannot be used."""
    try:
        return use(path)
    except OSError as error:
        raise ValueError(f"{option}: {path}: {error.strerror}") from None
