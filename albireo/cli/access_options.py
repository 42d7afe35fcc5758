"""Options of the commands that call a gateway: the API key and TLS."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:  # imported where a call is made: `--help` needs none of it
    from albireo.runtime.access import Access

PANEL = "Access"
Command = TypeVar("Command", bound=Callable[..., None])


def _option(name: str, kind: Any, default: object, help_text: str) -> inspect.Parameter:
    option = typer.Option(envvar=f"ALBIREO_{name.upper()}", help=help_text, rich_help_panel=PANEL)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


ACCESS = (
    _option("api_key", str, "", "API key; better in the variable or a file: others see command lines."),
    _option("api_key_file", Path | None, None, "File that holds the API key."),
    _option("tls", bool, False, "Connect with TLS; implied by --tls-ca."),
    _option("tls_ca", Path | None, None, "Authority that signed the gateway's certificate, PEM."),
    _option(
        "tls_cert", Path | None, None, "Certificate of this client, PEM, where the gateway asks for one."
    ),
    _option("tls_key", Path | None, None, "Private key of --tls-cert, PEM."),
)


def access_options(command: Command) -> Command:
    """Gives ``command`` the options; it takes their values as further keyword arguments."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    command.__signature__ = signature.replace(parameters=[*own, *ACCESS])  # type: ignore[attr-defined]
    return command


def take_access(values: dict[str, Any]) -> Access:
    """Takes the options' values out of ``values``. Raises BadParameter that names an option."""
    from albireo.runtime.access import Access, read_key

    given = {parameter.name: values.pop(parameter.name) for parameter in ACCESS}
    key_file = given.pop("api_key_file")
    try:
        if key_file is not None:
            if given["api_key"]:
                raise ValueError("api_key and api_key_file: give one of them")
            given["api_key"] = read_key(key_file)
        return Access(**given)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
