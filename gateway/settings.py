"""Options of a gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PrivateAttr, model_validator
from pydantic_settings import SettingsConfigDict

from albireo.contract.bounds import MAX_DEADLINE_SECONDS
from albireo.runtime.loopback import is_loopback
from albireo.runtime.redis_address import cell_name, redis_address
from albireo.runtime.settings import ServiceSettings, metrics_port_field

MAX_CELLS = 16


class GatewaySettings(ServiceSettings):
    """Options of a gateway."""

    model_config = SettingsConfigDict(env_prefix="ALBIREO_GATEWAY_")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(50051, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    published_host: str = Field(
        "",
        description="Address at which clients reach it, where a proxy publishes it elsewhere than --host.",
    )
    open: bool | None = Field(
        None,
        description="Serve everyone as long as there is no API key. Not set: only on a loopback address.",
    )
    tls_cert: Path | None = Field(
        None,
        description="Certificate for TLS, PEM, followed by any intermediate ones; not set: no TLS.",
    )
    tls_key: Path | None = Field(None, description="Private key of --tls-cert, PEM.")
    tls_client_ca: Path | None = Field(
        None, description="Authority, PEM: clients need a certificate that it signed (mutual TLS)."
    )
    health_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port for health alone, without TLS, for probes; 0 takes a free one; not set: none.",
    )
    model: Path | None = Field(
        None, description="Directory of the checkpoint of --model-name: its tokenizer and chat template."
    )
    models: Path | None = Field(
        None,
        description="Directory of checkpoints by name; each is served as soon as it has a scheduler.",
    )
    cells: str = Field(
        "",
        description="Redis of further cells, URLs separated by spaces; requests go to the least busy.",
    )
    generation_config: Literal["auto", "none"] = Field(
        "auto",
        description="auto: sampling that a client leaves open is that of generation_config.json; none: not.",
    )
    max_queue: int = Field(
        1024,
        ge=1,
        description="Most requests that wait for a slot, of several tenants an eighth more.",
    )
    max_streams: int = Field(4096, ge=1, description="Most calls of Generate and WatchSteps at once.")
    max_arriving: int = Field(
        1024,
        ge=1,
        description="Most calls that have sent headers and no whole request; the oldest makes room.",
    )
    message_seconds: float = Field(
        30.0, gt=0, le=3600, description="Most seconds from a call's headers to its whole request."
    )
    write_seconds: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="Most seconds that a client may leave a message unread; then its call is cut.",
    )
    max_message_mib: int = Field(4, ge=1, le=256, description="Largest message that is taken, in MiB.")
    max_deadline_seconds: float = Field(
        600.0,
        gt=0,
        le=MAX_DEADLINE_SECONDS,
        description="Most seconds that any request may take; a client may ask for less.",
    )
    record_seconds: float = Field(
        3600.0, gt=0, le=30 * 86_400, description="How long a request id stays taken after it was accepted."
    )
    drain_seconds: float = Field(5.0, ge=0, description="Seconds that running streams get before a stop.")
    sink: bool = Field(
        False, description="For measurements: detokenize all tokens, send clients only how streams end."
    )
    metrics_port: int | None = metrics_port_field()
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Log level.")

    _cell_addresses: list[str] = PrivateAttr(default_factory=list)

    @model_validator(mode="after")
    def _has_a_model(self) -> Self:
        if self.model is None and self.models is None:
            raise ValueError("model: give the directory of a checkpoint, or of several with --models")
        return self

    @model_validator(mode="after")
    def _read_the_files_of_cells(self) -> Self:
        urls = [self.redis_url, *self.cells.split()]
        if len({*map(cell_name, urls)}) < len(urls):
            raise ValueError("cells: each Redis once, that of --redis-url is the first")
        if len(urls) > MAX_CELLS:
            raise ValueError(f"cells: {len(urls)}; at most {MAX_CELLS}, with that of --redis-url")
        files = (self.redis_password_file, self.redis_ca_file)
        self._cell_addresses = [redis_address(url, *files) for url in urls]
        return self

    @property
    def cell_addresses(self) -> list[str]:
        """URLs of all cells, that of --redis-url first, with the password: not for logs."""
        return self._cell_addresses

    @model_validator(mode="after")
    def _certificates_have_keys(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key: give both, or none")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca: needs tls_cert and tls_key too")
        return self

    @property
    def reached_at(self) -> str:
        """Address at which clients reach the gateway."""
        return self.published_host or self.host

    @property
    def serves_without_keys(self) -> bool:
        """Whether calls need no API key as long as there is none."""
        return is_loopback(self.reached_at) if self.open is None else self.open

    @model_validator(mode="after")
    def _records_outlive_requests(self) -> Self:
        if self.record_seconds <= self.max_deadline_seconds:
            raise ValueError("record_seconds must be above max_deadline_seconds: a live id must stay taken")
        return self
