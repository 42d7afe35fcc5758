"""Options of the commands that change a deployment in its Redis, and the connection that they name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from albireo.cli.terminal import fail

if TYPE_CHECKING:
    from redis import Redis

RedisUrl = Annotated[
    str,
    typer.Option(
        envvar="ALBIREO_REDIS_URL",
        help="Redis of the deployment; empty: that of `albireo up`, in --data-dir.",
    ),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(envvar="ALBIREO_REDIS_PASSWORD_FILE", help="File that holds the password of Redis."),
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        envvar="ALBIREO_REDIS_CA_FILE", help="File with the authority that signed Redis's certificate."
    ),
]
DataDir = Annotated[
    Path, typer.Option(envvar="ALBIREO_UP_DATA_DIR", help="Where `albireo up` keeps its Redis.")
]
DATA_DIR = Path(".albireo")


@contextmanager
def connected(
    redis_url: str, password_file: Path | None, ca_file: Path | None, data_dir: Path
) -> Iterator[Redis]:
    """The Redis that the options name; ends the command with one line where it cannot be used."""
    from redis.exceptions import RedisError

    from albireo.local.redis_server import RedisServerError, own_redis
    from albireo.runtime.redis_address import redis_address
    from albireo.store.connection import connect
    from albireo.store.redis_errors import describe

    @contextmanager
    def address() -> Iterator[str]:
        if redis_url or password_file or ca_file:
            if not redis_url:
                raise ValueError("--redis-url: needed with --redis-password-file and --redis-ca-file")
            yield redis_address(redis_url, password_file, ca_file)
        else:
            with own_redis(data_dir / "redis") as url:
                yield url

    try:
        with address() as url, connect(url) as client:
            yield client
    except RedisError as error:
        fail(describe(error))
    except (RedisServerError, ValueError) as error:
        fail(str(error))
