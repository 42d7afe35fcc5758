"""Options of one rank of a worker group."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from albireo.runtime.kv_memory import BlockMemoryText, DiskSizeText, HostMemoryText, check_disk
from albireo.runtime.settings import ServiceSettings, metrics_port_field, shared, synchronous_field
from worker_svc.model.formats import Formats, KvFormat, WeightFormat


class WorkerSettings(ServiceSettings):
    """Options of a worker. Rank and group size come from torchrun's RANK, WORLD_SIZE, MASTER_ADDR, ..."""

    model_config = SettingsConfigDict(env_prefix="ALBIREO_WORKER_")

    model: Path = Field(description="Directory of the checkpoint, in Hugging Face layout.")
    group: str = Field(
        "",
        validation_alias=shared("group"),
        pattern=r"^[A-Za-z0-9._-]{0,32}$",
        description="Name of the group, for people and metrics; the scheduler gives one where it is empty or "
        "taken.",
    )
    device: Literal["cpu", "cuda", "sim"] = Field(
        "cpu",
        description="Where the model runs: cpu, cuda, or sim, which only waits as long as one would.",
    )
    cost_model: str = Field(
        "paper-32b",
        description="For --device sim: a device (h100), step times (paper-32b), or a TOML file of either.",
    )
    synchronous: bool = synchronous_field()
    sampling: Literal["auto", "parallel", "driver"] = Field(
        "auto",
        description="Who samples: parallel shares the rows among the ranks, driver leaves all to rank 0, "
        "auto goes by their number. Synchronous mode means driver.",
    )
    dtype: Literal["float32", "bfloat16"] = Field("bfloat16", description="float32 or bfloat16.")
    weights: WeightFormat = Field(
        "dtype",
        description="Weights of the layers: dtype (as --dtype says), or in 8 bits with a scale for each "
        "output, int8 or fp8 (E4M3); then rows are quantized too, on the fly. int8 takes a GPU or a CPU with "
        "AVX512-VNNI, fp8 a GPU of compute capability 8.9 or more.",
    )
    kv_dtype: KvFormat = Field(
        "dtype",
        description="KV blocks: dtype (as --dtype says), or int8 with a scale for each head and token. CPUs "
        "only.",
    )
    kv_memory: BlockMemoryText = Field(
        "auto",
        description="Memory for KV blocks on each rank: a size (8GiB), a share of what is free after the "
        "weights (40%), or auto: what --gpu-memory-share leaves of a GPU, or a quarter of free main memory, "
        "at most twice what all slots can use.",
    )
    kv_host_memory: HostMemoryText = Field(
        "auto",
        description="Memory of the KV tier in host memory on each rank: a size (8GiB), a share of what is "
        "free (40%), none, or auto: with GPUs a quarter of free main memory, divided among the ranks of the "
        "machine, else none.",
    )
    kv_disk: Path | None = Field(
        None,
        description="Directory of the KV tier on a disk of each rank's machine; not set: no such tier. What "
        "it holds outlives the rank.",
    )
    kv_disk_size: DiskSizeText = Field(
        "auto", description="Space that each rank takes in --kv-disk, from its start on; auto: 8GiB."
    )
    gpu_memory_share: float = Field(
        0.9, gt=0, le=1, description="Of a GPU's memory, what --kv-memory auto may fill, all included."
    )
    max_seqs: int = Field(64, ge=1, le=65536, description="Slots: most requests that run at once.")
    max_model_len: int = Field(
        8192,
        ge=2,
        description="Most tokens of one request, prompt and output; at most what the model takes, and what "
        "KV blocks and tiers hold.",
    )
    threads: int = Field(
        0, ge=0, description="Compute threads of this rank; 0: its share of the cores, one for a small model."
    )
    host: str = Field(
        "127.0.0.1", description="Address of the health endpoint (of the first rank on each machine)."
    )
    port: int = Field(50053, ge=0, le=65535, description="Port of the health endpoint; 0 takes a free one.")
    group_ttl_seconds: float = Field(
        3.0,
        gt=0.5,
        le=60,
        description="Seconds without a renewal after which the group's announcement expires.",
    )
    beat_seconds: float = Field(
        0.25,
        gt=0,
        le=2,
        description="Seconds from one heartbeat of the rank to the next. The scheduler's heartbeat_seconds, "
        "without one of which a rank is taken for dead, must be well above it.",
    )
    step_timeout_seconds: float = Field(
        120.0,
        gt=0,
        description="A step that runs longer means a stuck collective: the rank stops, should the scheduler "
        "not have noticed.",
    )
    log_entries: int = Field(4096, ge=64, description="Entries that the results log keeps.")
    metrics_port: int | None = metrics_port_field()
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Log level.")

    @property
    def formats(self) -> Formats:
        return Formats(self.weights, self.kv_dtype)

    @model_validator(mode="after")
    def _a_size_has_a_disk(self) -> Self:
        check_disk(self.kv_disk, self.kv_disk_size)
        return self
