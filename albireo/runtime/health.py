"""Asks a service for its gRPC health. As a module it is a health check that imports little more than gRPC."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from albireo import DEFAULT_TARGET

if TYPE_CHECKING:
    from albireo.runtime.access import Access

TIMEOUT_SECONDS = 3.0
SERVICE_HELP = "What to ask about: empty is the whole service, `live` is whether its process answers."


def status(
    target: str, *, service: str = "", timeout: float = TIMEOUT_SECONDS, access: Access | None = None
) -> str:
    """The health status of ``target`` (host:port): SERVING, NOT_SERVING, ... Raises grpc.RpcError.

    ``timeout``: seconds for the whole call, connecting included. ``access``: its TLS; health needs no key.
    """
    # Here, and below: `--help` needs none of it.
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from albireo.runtime.access import ANYONE

    with (access or ANYONE).channel(target) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        found = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout).status
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(found))


def problem(
    target: str, *, service: str = "", timeout: float = TIMEOUT_SECONDS, access: Access | None = None
) -> str:
    """Why ``target`` does not serve, in a line; empty where it does."""
    import grpc

    try:
        found = status(target, service=service, timeout=timeout, access=access)
    except grpc.RpcError as error:
        return f"{target}: {error.code().name}: {error.details()}"
    return "" if found == "SERVING" else f"{target}: {found}"


def main() -> None:
    """Exit status 0 where it serves, else 1 and one line on standard error."""
    parser = argparse.ArgumentParser(prog="python -m albireo.runtime.health", description=__doc__)
    parser.add_argument("target", nargs="?", default=DEFAULT_TARGET, help="Address, host:port.")
    parser.add_argument("--service", default="", help=SERVICE_HELP)
    parser.add_argument("--timeout", type=float, default=TIMEOUT_SECONDS, help="Most seconds to wait.")
    options = parser.parse_args()
    found = problem(options.target, service=options.service, timeout=options.timeout)
    if found:
        sys.exit(f"albireo: {found}")


if __name__ == "__main__":
    main()
