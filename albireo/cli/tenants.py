"""``albireo tenants``: shares and quotas of tenants, changed while everything runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from albireo.cli.redis_options import DATA_DIR, CaFile, DataDir, PasswordFile, RedisUrl, connected
from albireo.cli.terminal import fail
from albireo.contract.bounds import IDENTIFIER
from albireo.contract.tenants import DEFAULT, TenantPolicy

if TYPE_CHECKING:
    from albireo.store.tenant_policies import TenantPolicies

app = typer.Typer(no_args_is_help=True, help="Shares and quotas of tenants, changed while everything runs.")

Tenant = Annotated[str, typer.Argument(help="Name of the tenant, as its requests or its API keys have it.")]


@app.command("set")
def set_policy(
    tenant: Tenant,
    weight: Annotated[float | None, typer.Option(help="Share of the service where tenants compete.")] = None,
    max_requests: Annotated[
        int | None, typer.Option(help="Most branches that wait or run at once; 0: no quota.")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(help="Tokens of prompts and outputs in a minute; 0: no quota.")
    ] = None,
    queue_share: Annotated[
        float | None, typer.Option(help="Share of the places of the queue, at most 1.")
    ] = None,
    redis_url: RedisUrl = "",
    redis_password_file: PasswordFile = None,
    redis_ca_file: CaFile = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Sets what is given, the rest stays or is the default. Services follow within about a second."""
    if not IDENTIFIER.fullmatch(tenant):
        raise typer.BadParameter(
            f"{tenant!r} is not 1 to 64 characters of [A-Za-z0-9._-]", param_hint="TENANT"
        )
    given = {
        "weight": weight,
        "max_requests": max_requests,
        "tokens_per_minute": tokens_per_minute,
        "queue_share": queue_share,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    with _policies(redis_url, redis_password_file, redis_ca_file, data_dir) as policies:
        before = policies.all().get(tenant, DEFAULT)
        try:
            policy = replace(before, **changes)  # type: ignore[arg-type]
        except ValueError as error:
            name, _, problem = str(error).partition(": ")
            raise typer.BadParameter(problem, param_hint=f"--{name.replace('_', '-')}") from None
        policies.put(tenant, policy)
    typer.echo(_line(tenant, policy))


@app.command("list")
def list_policies(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    redis_url: RedisUrl = "",
    redis_password_file: PasswordFile = None,
    redis_ca_file: CaFile = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Lists the tenants that have a policy."""
    with _policies(redis_url, redis_password_file, redis_ca_file, data_dir) as policies:
        found = dict(sorted(policies.all().items()))
    if as_json:
        typer.echo(json.dumps({tenant: asdict(policy) for tenant, policy in found.items()}, indent=2))
        return
    for tenant, policy in found.items():
        typer.echo(_line(tenant, policy))
    if not found:
        typer.echo("no tenant has a policy: all have weight 1 and no quotas")


@app.command()
def remove(
    tenant: Tenant,
    redis_url: RedisUrl = "",
    redis_password_file: PasswordFile = None,
    redis_ca_file: CaFile = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Removes the policy of a tenant, which has weight 1 and no quotas then."""
    with _policies(redis_url, redis_password_file, redis_ca_file, data_dir) as policies:
        if not policies.remove(tenant):
            fail(f"tenant {tenant} has no policy")
    typer.echo(f"{tenant}: weight 1, no quotas")


def _line(tenant: str, policy: TenantPolicy) -> str:
    quotas = {
        "requests at once": policy.max_requests,
        "tokens a minute": policy.tokens_per_minute,
        "% of the queue": 100 * policy.queue_share % 100,
    }
    known = [f"{value:g} {name}" for name, value in quotas.items() if value]
    return f"{tenant}: weight {policy.weight:g}, {', '.join(known) or 'no quotas'}"


@contextmanager
def _policies(
    redis_url: str, password_file: Path | None, ca_file: Path | None, data_dir: Path
) -> Iterator[TenantPolicies]:
    """Those in the Redis that the options name; ends the command where it cannot be used."""
    from albireo.store.tenant_policies import TenantPolicies

    with connected(redis_url, password_file, ca_file, data_dir) as client:
        yield TenantPolicies(client)
