"""Checks the ports that the services would listen on."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

import grpc

from albireo.local.ports import bind_once
from albireo.runtime.health import status
from albireo.runtime.settings import ServiceSettings
from albireo.tools.doctor.finding import Finding, failure, note, ok

HEALTH_SECONDS = 2.0
OURS = "no problem if that is the stack you mean; another one needs other ports"


def ports_of(service: str, settings: ServiceSettings) -> Iterator[tuple[str, str, int]]:
    """Name, address and number of each port that is set; one that is 0 or unset takes no particular one."""
    host = str(getattr(settings, "host", "127.0.0.1"))
    for name in type(settings).model_fields:
        number = getattr(settings, name)
        if name.endswith("port") and number:
            yield f"ALBIREO_{service.upper()}_{name.upper()}", host, number


def check_ports(wanted: Iterable[tuple[str, str, int]]) -> list[Finding]:
    found, taken = [], dict[tuple[str, int], str]()
    for variable, host, port in wanted:
        if (host, port) in taken:
            found.append(
                failure(f"port {port}", f"{taken[host, port]} and {variable} both name it", "change one")
            )
        else:
            taken[host, port] = variable
            found.append(check_port(variable, host, port))
    return found


def check_port(variable: str, host: str, port: int) -> Finding:
    check, address = f"port {port}", f"{host}:{port} ({variable})"
    try:
        bind_once(host, port)
        return ok(check, f"{address} is free")
    except socket.gaierror as error:
        return failure(check, f"{address}: {error}", "the host must be an address of this machine")
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return failure(check, f"{address}: {error.strerror}", f"choose another port or host: {variable}")
    reach = "127.0.0.1" if host in ("0.0.0.0", "") else "::1" if host == "::" else host
    if (health := _health(f"[{reach}]:{port}" if ":" in reach else f"{reach}:{port}")) is not None:
        return note(check, f"{address} is taken by a service whose health is {health}", OURS)
    owner, command = _owner(port)
    if "albireo" in command:
        return note(check, f"{address} is taken by {owner}", OURS)
    return failure(check, f"{address} is taken by {owner}", f"end it, or choose another port: {variable}")


def _health(target: str) -> str | None:
    """The health status of the service there, None where it has no grpc.health.v1."""
    try:
        return status(target, timeout=HEALTH_SECONDS)
    except grpc.RpcError:
        return None


def _owner(port: int) -> tuple[str, str]:
    """The process that listens there and its command line, as far as /proc shows them to this user."""
    sockets = set(_listening(port))
    for link in Path("/proc").glob("[0-9]*/fd/*") if sockets else ():
        try:
            if os.readlink(link) in sockets:
                process = link.parents[1]
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                return f"process {process.name} ({(process / 'comm').read_text().strip()})", command
        except OSError:  # gone meanwhile, or another user's
            continue
    return "another process", ""


def _listening(port: int) -> Iterator[str]:
    """Links, as they stand in /proc/*/fd, of sockets that listen on the port."""
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if not table.exists():
            continue
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            local, state, inode = fields[1], fields[3], fields[9]
            if state == "0A" and int(local.rpartition(":")[2], 16) == port:
                yield f"socket:[{inode}]"
