"""TCP ports that no other process of tests takes."""

from __future__ import annotations

import contextlib
import itertools
import socket

from albireo.local.ports import bind_once

FIRST, LAST, COUNT = 12_000, 32_000, 500


class OwnPorts:
    """A range of ports for this process alone.

    Many tests choose a port and start a process, which binds it seconds later. Until then no other process
    may bind it. So each process of tests has a range of its own, below the ports that Linux gives to
    connections and to sockets that bind port 0.
    """

    def __init__(self) -> None:
        # A name in Linux' abstract namespace is taken until its socket is closed.
        self._name = socket.socket(socket.AF_UNIX)
        for first in range(FIRST, LAST, COUNT):
            with contextlib.suppress(OSError):
                self._name.bind(f"\0albireo-test-ports-{first}")
                break
        else:
            raise RuntimeError("every range of ports is taken")
        # Every second one: a group's second rank serves its metrics one port above the first rank's.
        self._ports = itertools.cycle(range(first, first + COUNT, 2))

    def close(self) -> None:
        """Another process may have the range."""
        self._name.close()

    def bind_once(self, host: str, port: int) -> int:
        """As :func:`albireo.local.ports.bind_once`, which binds port 0 where any port will do."""
        if port:
            return bind_once(host, port)
        for own in itertools.islice(self._ports, COUNT):
            with contextlib.suppress(OSError):
                return bind_once(host, own)
        raise OSError(f"no port of {host} is free")
