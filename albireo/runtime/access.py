"""How a client reaches a gateway: its API key, and TLS. For the client library, commands and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

MAX_KEY_BYTES = 1024
ChannelOptions = Sequence[tuple[str, int | str]]


@dataclass(frozen=True, slots=True)
class Access:
    """Reads its files when it is made. Raises ValueError that names the argument."""

    api_key: str = field(default="", repr=False)
    tls: bool = False  # implied by tls_ca
    tls_ca: Path | None = None  # PEM; None: gRPC's own list of authorities
    tls_cert: Path | None = None  # PEM, the client's own, for mutual TLS
    tls_key: Path | None = None
    _credentials: grpc.ChannelCredentials | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.api_key.isprintable() or not self.api_key.isascii():
            raise ValueError("api_key: not printable ASCII")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key: give both, or none")
        if self.tls or self.tls_ca is not None:
            read = [_read(name, getattr(self, name)) for name in ("tls_ca", "tls_key", "tls_cert")]
            object.__setattr__(self, "_credentials", grpc.ssl_channel_credentials(*read))
        elif self.tls_cert is not None:
            raise ValueError("tls_cert: needs tls or tls_ca too")

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Headers of each call."""
        return (("authorization", f"Bearer {self.api_key}"),) if self.api_key else ()

    def channel(self, target: str, options: ChannelOptions = ()) -> grpc.Channel:
        """To ``target``, host:port. Its certificate must be for that host."""
        if self._credentials is None:
            return grpc.insecure_channel(target, options=options)
        return grpc.secure_channel(target, self._credentials, options=options)

    def async_channel(self, target: str, options: ChannelOptions = ()) -> grpc.aio.Channel:
        """As ``channel``, for an event loop."""
        if self._credentials is None:
            return grpc.aio.insecure_channel(target, options=options)
        return grpc.aio.secure_channel(target, self._credentials, options=options)


ANYONE = Access()
"""Without a key and without TLS."""


def read_key(path: Path) -> str:
    """The API key in a file, without the newline at its end. Raises ValueError that names the file."""
    data = _read("api_key_file", path) or b""
    if not data.strip() or len(data) > MAX_KEY_BYTES:
        raise ValueError(f"api_key_file: {path}: no API key in it")
    return data.decode(errors="replace").strip()


def _read(name: str, path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise ValueError(f"{name}: {path}: {error.strerror}") from None
