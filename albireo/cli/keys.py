"""``albireo keys``: creates, lists and revokes the API keys of a deployment."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from albireo.cli.redis_options import DATA_DIR, CaFile, DataDir, PasswordFile, RedisUrl, connected
from albireo.cli.terminal import fail
from albireo.contract import api_keys
from albireo.contract.api_keys import ApiKey

if TYPE_CHECKING:
    from albireo.store.api_keys import ApiKeyStore

DAY = 86_400
PRIORITIES = "0:100"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Creates, lists and revokes the API keys of a deployment.",
)


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="On whose behalf: 1 to 64 characters of [A-Za-z0-9._-].")],
    priorities: Annotated[
        str, typer.Option(metavar="LOW:HIGH", help="Priorities that it permits; a lower one runs earlier.")
    ] = PRIORITIES,
    days: Annotated[float | None, typer.Option(min=0, help="Days until it expires; not set: never.")] = None,
    note: Annotated[str, typer.Option(help="For people, such as who has it; shown by `list`.")] = "",
    redis_url: RedisUrl = "",
    redis_password_file: PasswordFile = None,
    redis_ca_file: CaFile = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Creates a key and prints it, this once: only its hash is stored. Gateways accept it within a second."""
    now = int(time.time())
    least, greatest = _range(priorities)
    text, key_id = api_keys.new_key()
    try:
        key = ApiKey(
            digest=api_keys.digest_of(text),
            tenant=tenant,
            least_priority=least,
            greatest_priority=greatest,
            created_at=now,
            expires_at=None if days is None else now + int(days * DAY),
            note=note,
        )
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(str(error)) from None
    with _store(redis_url, redis_password_file, redis_ca_file, data_dir) as store:
        store.put(key_id, key)
    typer.echo(text)
    typer.echo(f"key {key_id} of tenant {tenant}: keep it, it is not shown again", err=True)


@app.command("list")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
    redis_url: RedisUrl = "",
    redis_password_file: PasswordFile = None,
    redis_ca_file: CaFile = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Lists all keys by id, without their secrets, which are stored nowhere."""
    with _store(redis_url, redis_password_file, redis_ca_file, data_dir) as store:
        keys, problems = store.all()
    for problem in problems:
        typer.echo(f"albireo: {problem}", err=True)
    if as_json:
        typer.echo(json.dumps([_row(key_id, key) for key_id, key in keys.items()], indent=2))
    else:
        _print(keys)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key, as `list` shows it.")],
    redis_url: RedisUrl = "",
    redis_password_file: PasswordFile = None,
    redis_ca_file: CaFile = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Revokes a key: within two seconds gateways refuse it, and end the calls that run with it."""
    if not api_keys.ID.fullmatch(key_id):
        raise typer.BadParameter("an id has 16 characters of [0-9a-f]; `albireo keys list` shows them")
    with _store(redis_url, redis_password_file, redis_ca_file, data_dir) as store:
        found = store.remove(key_id)
    if not found:
        fail(f"there is no key {key_id}")
    typer.echo(f"key {key_id} is revoked", err=True)


@contextmanager
def _store(
    redis_url: str, password_file: Path | None, ca_file: Path | None, data_dir: Path
) -> Iterator[ApiKeyStore]:
    """The keys in the Redis that the options name; ends the command where it cannot be used."""
    from albireo.store.api_keys import ApiKeyStore

    with connected(redis_url, password_file, ca_file, data_dir) as client:
        yield ApiKeyStore(client)


def _range(text: str) -> tuple[int, int]:
    low, _, high = text.partition(":")
    try:
        return int(low), int(high)
    except ValueError:
        raise typer.BadParameter(f"--priorities: {text!r} is not LOW:HIGH, such as {PRIORITIES}") from None


def _row(key_id: str, key: ApiKey) -> dict[str, Any]:
    return {
        "id": key_id,
        "tenant": key.tenant,
        "priorities": [key.least_priority, key.greatest_priority],
        "created": _date(key.created_at),
        "expires": None if key.expires_at is None else _date(key.expires_at),
        "expired": key.expired(time.time()),
        "note": key.note,
    }


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _print(keys: dict[str, ApiKey]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("id", "tenant", "priorities", "created", "expires", "note")
    table.columns[0].no_wrap = True
    for key_id, key in sorted(keys.items(), key=lambda item: (item[1].tenant, item[1].created_at)):
        row = _row(key_id, key)
        expires = f"{(row['expires'] or 'never')[:10]}{' (expired)' if row['expired'] else ''}"
        priorities = f"{key.least_priority} to {key.greatest_priority}"
        # Text: a note may contain what rich would take for markup.
        table.add_row(key_id, key.tenant, priorities, row["created"][:10], expires, Text(key.note))
    Console().print(table)
