"""``albireo health``: does a service serve?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from albireo.cli.access_options import access_options, take_access
from albireo.cli.terminal import TARGET, fail
from albireo.runtime.health import SERVICE_HELP, TIMEOUT_SECONDS, problem


@access_options
def health(
    target: Annotated[
        str,
        typer.Argument(envvar="ALBIREO_TARGET", help="Gateway, scheduler or first rank of a machine."),
    ] = TARGET,
    service: Annotated[str, typer.Option(help=SERVICE_HELP)] = "",
    timeout: Annotated[float, typer.Option(min=0, help="Most seconds to wait.")] = TIMEOUT_SECONDS,
    **access_given: Any,
) -> None:
    """Asks a service for its gRPC health: exit status 0 where it serves, else 1 and why."""
    access = take_access(access_given)
    found = problem(target, service=service, timeout=timeout, access=access)
    if found:
        fail(found)
    typer.echo(f"{target} serves")
