"""TCP ports of this machine: a free one, and whether one is free."""

from __future__ import annotations

import socket


def free_port(host: str) -> int:
    """A port that was free a moment ago. Raises OSError for an address that is not this machine's."""
    return bind_once(host, 0)


def bind_once(host: str, port: int) -> int:
    """Binds a socket to an address for a moment; returns its port. Raises OSError where it is taken."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # its last connections may linger
        probe.bind((host, port))
        taken: int = probe.getsockname()[1]
        return taken
