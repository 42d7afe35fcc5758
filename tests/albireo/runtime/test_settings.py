"""Options come from one model: flags, variables, defaults, errors."""

from __future__ import annotations

from typing import Literal

import pytest
import typer
from pydantic import Field
from pydantic_settings import SettingsConfigDict
from typer.testing import CliRunner

from albireo.runtime.settings import ServiceSettings, command


class ExampleSettings(ServiceSettings):
    """Options of nothing."""

    model_config = SettingsConfigDict(env_prefix="ALBIREO_EXAMPLE_")

    port: int = Field(7, ge=0, le=65535, description="A port.")
    kind: Literal["a", "b"] = Field("a", description="A kind.")


def invoke(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str, list[ExampleSettings]]:
    seen: list[ExampleSettings] = []
    app = typer.Typer()
    app.command("example")(command(ExampleSettings, seen.append))
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", **(env or {})})
    return result.exit_code, result.output, seen


def test_flags_override_variables_override_defaults() -> None:
    _, _, [plain] = invoke()
    assert (plain.port, plain.kind, plain.redis_url) == (7, "a", "redis://127.0.0.1:6379/0")
    env = {"ALBIREO_EXAMPLE_PORT": "8", "ALBIREO_REDIS_URL": "unix:///r"}
    _, _, [from_env] = invoke(env=env)
    assert (from_env.port, from_env.redis_url) == (8, "unix:///r")
    _, _, [from_flag] = invoke("--port", "9", "--kind", "b", env=env)
    assert (from_flag.port, from_flag.kind) == (9, "b")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "--port"),
        (["--kind", "c"], "--kind"),
        (["--prot", "1"], "No such option"),
        (["--model-name", "no spaces"], "--model-name"),
    ],
)
def test_what_is_wrong_is_named(arguments: list[str], message: str) -> None:
    code, output, seen = invoke(*arguments)
    assert code == 2
    assert message in output
    assert not seen


def test_help_names_option_variable_default_and_meaning() -> None:
    _, output, _ = invoke("--help")
    for part in ("--port", "ALBIREO_EXAMPLE_PORT", "7", "A port.", "ALBIREO_REDIS_URL"):
        assert part in output
