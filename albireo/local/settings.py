"""Options of ``albireo up``: of the stack as a whole, and those that it passes on to the services."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import AliasChoices, Field, model_validator
from pydantic_settings import SettingsConfigDict

from albireo.models import TINY
from albireo.runtime.kv_memory import BlockMemoryText, DiskSizeText, HostMemoryText, check_disk
from albireo.runtime.settings import ServiceSettings, synchronous_field


class StackSettings(ServiceSettings):
    """Options of ``albireo up``. The services' own options are read from their variables as well."""

    model_config = SettingsConfigDict(env_prefix="ALBIREO_UP_")

    redis_url: str = Field(
        "",
        validation_alias=ServiceSettings.model_fields["redis_url"].validation_alias,
        description="Redis to use; empty starts one of our own in the data directory.",
    )
    model_name: str = Field(
        "",
        validation_alias=ServiceSettings.model_fields["model_name"].validation_alias,
        pattern=r"^[A-Za-z0-9._/-]{0,128}$",
        description="Name under which the model is served; empty: the name of its directory.",
    )
    model: Path = Field(TINY, description="Directory of the checkpoint; the bundled model if not given.")
    groups: int = Field(1, ge=1, le=64, description="Worker groups; each holds the whole model.")
    tp: int = Field(1, ge=1, le=64, description="Tensor-parallel degree: ranks of each worker group.")
    device: Literal["cpu", "cuda", "sim"] = Field(
        "cpu",
        description="Where the model runs: cpu, cuda, or sim, which only waits as long as one would.",
    )
    cost_model: str = Field(
        "paper-32b",
        description="For --device sim: a device (h100), step times (paper-32b), or a TOML file of either.",
    )
    synchronous: bool = synchronous_field()
    dtype: Literal["float32", "bfloat16"] = Field("bfloat16", description="float32 or bfloat16.")
    weights: Literal["dtype", "int8", "fp8"] = Field(
        "dtype",
        validation_alias=AliasChoices("weights", "ALBIREO_WORKER_WEIGHTS"),
        description="Weights of the layers: dtype (as --dtype says), int8 (by a GPU, or a CPU with "
        "AVX512-VNNI), or fp8 (by a GPU of compute capability 8.9 or more).",
    )
    kv_dtype: Literal["dtype", "int8"] = Field(
        "dtype",
        validation_alias=AliasChoices("kv_dtype", "ALBIREO_WORKER_KV_DTYPE"),
        description="KV blocks: dtype (as --dtype says), or int8, on CPUs.",
    )
    kv_memory: BlockMemoryText = Field(
        "auto",
        validation_alias=AliasChoices("kv_memory", "ALBIREO_WORKER_KV_MEMORY"),
        description="Memory for KV blocks on each rank: 8GiB, 40% of what the weights leave free, or auto.",
    )
    kv_host_memory: HostMemoryText = Field(
        "auto",
        validation_alias=AliasChoices("kv_host_memory", "ALBIREO_WORKER_KV_HOST_MEMORY"),
        description="Memory of the KV tier in host memory on each rank: 8GiB, 40%, none, or auto.",
    )
    kv_disk: Path | None = Field(
        None,
        validation_alias=AliasChoices("kv_disk", "ALBIREO_WORKER_KV_DISK"),
        description="Directory of the KV tier on disk; not set: no such tier.",
    )
    kv_disk_size: DiskSizeText = Field(
        "auto",
        validation_alias=AliasChoices("kv_disk_size", "ALBIREO_WORKER_KV_DISK_SIZE"),
        description="Space that each rank takes in --kv-disk; auto: 8GiB.",
    )
    host: str = Field("127.0.0.1", description="Address that the gateway listens on.")
    port: int = Field(50051, ge=0, le=65535, description="Port of the gateway; 0 takes a free one.")
    open: bool | None = Field(
        None,
        validation_alias=AliasChoices("open", "ALBIREO_GATEWAY_OPEN"),
        description="Serve everyone as long as there is no API key. Not set: only on a loopback address.",
    )
    tls_cert: Path | None = Field(
        None,
        validation_alias=AliasChoices("tls_cert", "ALBIREO_GATEWAY_TLS_CERT"),
        description="Certificate of the gateway for TLS, PEM; not set: no TLS.",
    )
    tls_key: Path | None = Field(
        None,
        validation_alias=AliasChoices("tls_key", "ALBIREO_GATEWAY_TLS_KEY"),
        description="Private key of --tls-cert, PEM.",
    )
    tls_client_ca: Path | None = Field(
        None,
        validation_alias=AliasChoices("tls_client_ca", "ALBIREO_GATEWAY_TLS_CLIENT_CA"),
        description="Authority, PEM: clients need a certificate that it signed (mutual TLS).",
    )
    data_dir: Path = Field(Path(".albireo"), description="Where Redis keeps its file, and the logs go.")
    start_seconds: float = Field(300.0, gt=0, description="Most seconds until everything must serve.")

    @model_validator(mode="after")
    def _a_size_has_a_disk(self) -> Self:
        check_disk(self.kv_disk, self.kv_disk_size)
        return self

    @model_validator(mode="after")
    def _a_password_has_a_redis(self) -> Self:
        if self.redis_password_file is not None and not self.redis_url:
            raise ValueError("redis_password_file: give redis_url too; our own Redis is a private socket")
        return self
