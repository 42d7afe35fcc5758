"""Options of the scheduler service."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from albireo.runtime.settings import ServiceSettings, metrics_port_field, synchronous_field
from scheduler_svc.core import Window

MAX_LOOK_AHEAD = 8


class SchedulerSettings(ServiceSettings):
    """Options of the scheduler."""

    model_config = SettingsConfigDict(env_prefix="ALBIREO_SCHEDULER_")

    host: str = Field("127.0.0.1", description="Address of the health endpoint.")
    port: int = Field(50052, ge=0, le=65535, description="Port of the health endpoint; 0 takes a free one.")
    max_num_seqs: int = Field(
        256, ge=1, le=65536, description="Most requests that run at once in a group; its own limit holds too."
    )
    max_num_batched_tokens: int = Field(2048, ge=1, description="Most tokens that one step computes.")
    prefill_chunk: int = Field(512, ge=1, description="Most prompt tokens of one request in one step.")
    look_ahead: str = Field(
        "1",
        pattern="^([1-8]|auto)$",
        description="Plans published ahead of the running step, 1 to 8; auto: as few as keep ranks busy.",
    )
    synchronous: bool = synchronous_field()
    prefix_cache: bool = Field(True, description="Reuse KV blocks of equal prompt beginnings.")
    shared_prefix_cache: bool = Field(
        False,
        description="Tenants share the prefix cache; each can then find out which prompts others sent.",
    )
    priority_seconds: float = Field(
        10.0, ge=0, description="Head start in the queue that one unit of priority is worth, in seconds."
    )
    prefill_weight: float = Field(
        1.0, ge=0, description="Service that a computed token of a prompt counts as in tenants' fair shares."
    )
    decode_weight: float = Field(
        2.0, ge=0, description="Service that an output token counts as in tenants' fair shares."
    )
    cache_salt: str = Field("", description="Seeds the hashes of the prefix cache; one value a deployment.")
    lease_seconds: float = Field(
        3.0, gt=0.5, le=60, description="Seconds without a renewal after which a scheduler's lease expires."
    )
    heartbeat_seconds: float = Field(
        5.0,
        ge=1,
        le=600,
        description="Seconds without a rank's heartbeat, or in one collective, that end a group.",
    )
    log_entries: int = Field(4096, ge=64, description="Entries that the plan log of each group keeps.")
    metrics_port: int | None = metrics_port_field()
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Log level.")

    def window(self) -> Window:
        """How many plans may be in flight: the running one and those ahead."""
        if self.synchronous:
            return Window(1)
        if self.look_ahead == "auto":
            return Window(2, largest=MAX_LOOK_AHEAD + 1)
        return Window(int(self.look_ahead) + 1)

    @model_validator(mode="after")
    def _every_row_fits(self) -> Self:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                "max_num_batched_tokens must be at least max_num_seqs: each decoding row is a token"
            )
        return self
