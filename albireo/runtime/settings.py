"""One settings model per service: the single source of its options, environment variables and help."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import typer
from pydantic import AliasChoices, Field, PrivateAttr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined
from pydantic_settings import BaseSettings, SettingsConfigDict

from albireo.runtime.redis_address import redis_address


def shared(name: str) -> AliasChoices:
    """Alias of a setting that several services read from the same variable, ``ALBIREO_<NAME>``."""
    return AliasChoices(name, f"ALBIREO_{name.upper()}")


def synchronous_field() -> Any:
    """The flag that turns the overlap off, in the scheduler and in the worker."""
    return Field(
        False,
        validation_alias=shared("synchronous"),
        description="No overlap, for comparison: plan after each result, token ids by way of the host.",
    )


def metrics_port_field() -> Any:
    """The port of a service's Prometheus endpoint, on the service's host."""
    return Field(
        None,
        ge=0,
        le=65535,
        description="Port of the Prometheus endpoint, /metrics; 0 takes a free one; not set: none.",
    )


class ServiceSettings(BaseSettings):
    """What every service needs. A subclass sets ``env_prefix`` to ``ALBIREO_<SERVICE>_``."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, protected_namespaces=(), env_ignore_empty=True
    )

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        validation_alias=shared("redis_url"),
        description="Redis that holds the logs: redis://, rediss:// or unix:// URL.",
    )
    redis_password_file: Path | None = Field(
        None,
        validation_alias=shared("redis_password_file"),
        description="File that holds the password of Redis; read once, at the start.",
    )
    redis_ca_file: Path | None = Field(
        None,
        validation_alias=shared("redis_ca_file"),
        description="File with the authority that signed the certificate of Redis, for a rediss:// URL.",
    )
    model_name: str = Field(
        "tiny",
        validation_alias=shared("model_name"),
        pattern=r"^[A-Za-z0-9._/-]{1,128}$",
        description="Name under which the model is served; part of every Redis key.",
    )
    otlp_endpoint: str = Field(
        "",
        validation_alias=shared("otlp_endpoint"),
        pattern=r"^(https?://[^\s/]+/?)?$",
        description="Collector of metrics and traces, OTLP over gRPC: http(s)://host:port; empty: none.",
    )
    trace_sample_ratio: float = Field(
        0.1,
        validation_alias=shared("trace_sample_ratio"),
        ge=0,
        le=1,
        description="Share of requests that are traced; a client that sends a traceparent decides itself.",
    )
    log_format: Literal["text", "json"] = Field(
        "text",
        validation_alias=shared("log_format"),
        description="Log lines: text, or json, which also has a line for the end of every request.",
    )
    _redis_address: str = PrivateAttr("")

    @model_validator(mode="after")
    def _read_the_files_of_redis(self) -> Self:
        self._redis_address = redis_address(self.redis_url, self.redis_password_file, self.redis_ca_file)
        return self

    @property
    def redis_address(self) -> str:
        """URL to connect to, with the password where a file holds one: not for logs."""
        return self._redis_address


Settings = TypeVar("Settings", bound=ServiceSettings)


def _problem(error: ErrorDetails) -> str:
    """The error with the option's name; an error about several options together has none."""
    option = f"--{str(error['loc'][0]).replace('_', '-')}: " if error["loc"] else ""
    return option + error["msg"]


def variable(settings: type[ServiceSettings], name: str, field: FieldInfo) -> str:
    """Name of the environment variable of a field."""
    if isinstance(field.validation_alias, AliasChoices):
        return str(field.validation_alias.choices[-1])
    return f"{settings.model_config.get('env_prefix', '')}{name.upper()}"


def command(settings: type[Settings], run: Callable[[Settings], None]) -> Callable[..., None]:
    """A typer command whose options are the fields of ``settings``: validates them and calls ``run``.

    An invalid value ends the command with the field's name and what is wrong, exit status 2.
    """

    def entry(**values: Any) -> None:
        given = {name: value for name, value in values.items() if value is not None}
        try:
            parsed = settings(**given)
        except ValidationError as error:
            raise typer.BadParameter("; ".join(map(_problem, error.errors()))) from None
        run(parsed)

    parameters = []
    for name, field in settings.model_fields.items():
        option = typer.Option(
            envvar=variable(settings, name, field), help=field.description, show_default=True
        )
        kind = _option_type(field)
        default = inspect.Parameter.empty if field.default is PydanticUndefined else field.default
        parameters.append(
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
            )
        )
    entry.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    entry.__doc__ = run.__doc__
    return entry


def _option_type(field: FieldInfo) -> Any:
    """The type typer parses; what pydantic adds on top (bounds, patterns) is checked by the model."""
    plain: tuple[Any, ...] = (bool, int, float, str, Path)
    if field.annotation in plain:
        return field.annotation
    for kind in plain:
        if field.annotation == (kind | None):
            return kind | None
    return str  # Literal and the like: the model says what is allowed
