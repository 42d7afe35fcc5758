"""Sockets between the ranks of one machine, by which they wait for one another and share file descriptors.

:class:`worker_svc.collectives.tp_group.TPGroup` makes them on the first collective; the compute stage waits.
"""

from __future__ import annotations

import os
import secrets
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import torch
import torch.distributed as dist

TOKEN_BYTES = 16
SIGNAL = b"\0"
_CREDENTIALS = struct.Struct("3i")  # process, user, group


class LocalRanks:
    """The other ranks of the default group. All ranks call the same, in order.

    A rank that waits is woken by the kernel, with no thread in between: gloo's own barrier, over loopback and
    a thread on each side, takes milliseconds where the cores are busy.
    """

    def __init__(self, sockets: dict[int, socket.socket]) -> None:
        """``sockets``: by rank, each with the most seconds that a call may wait as its timeout."""
        self._sockets = sockets

    @classmethod
    def find(cls, rank: int, size: int, *, timeout_seconds: float) -> Self | None:
        """None, on every rank, where any two of them are not on the same machine."""
        token = torch.tensor(list(secrets.token_bytes(TOKEN_BYTES)), dtype=torch.uint8)
        dist.broadcast(token, 0)
        # Names in Linux' abstract namespace: they go with the sockets. Others of this machine may see them,
        # so only processes of the same user are let in.
        name = "\0albireo-" + bytes(token.tolist()).hex()
        ranks = cls({})
        with socket.socket(socket.AF_UNIX) as listener:
            listener.settimeout(timeout_seconds)
            listener.bind(f"{name}-{rank}")
            listener.listen(size)
            dist.barrier()
            reached = all(
                ranks._connect(f"{name}-{peer}", rank, peer, timeout_seconds) for peer in range(rank)
            )
            everyone = torch.tensor([int(reached)])
            dist.all_reduce(everyone, dist.ReduceOp.MIN)
            if not everyone:
                ranks.close()
                return None
            while len(ranks._sockets) < size - 1:  # all have connected already
                ranks._accept(listener, timeout_seconds)
        return ranks

    def _accept(self, listener: socket.socket, timeout_seconds: float) -> None:
        with _answering("another"):
            connection, _ = listener.accept()
            connection.settimeout(timeout_seconds)
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            _, user, _ = _CREDENTIALS.unpack(credentials)
            sent = connection.recv(1)
        if user != os.geteuid() or not sent:  # no rank of this group
            connection.close()
        else:
            self._sockets[sent[0]] = connection

    def _connect(self, name: str, rank: int, peer: int, timeout_seconds: float) -> bool:
        connection = self._sockets[peer] = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout_seconds)
        try:
            connection.connect(name)
            connection.send(bytes([rank]))
        except OSError:
            return False
        return True

    def close(self) -> None:
        for connection in self._sockets.values():
            connection.close()

    def barrier(self) -> None:
        """Waits until every rank is here. Raises RuntimeError when one is gone, or late."""
        self.signal()
        self.wait()

    def signal(self) -> None:
        """The first half of a barrier: signals to the others that this rank is here. Raises likewise."""
        for rank, peer in self._sockets.items():
            with _answering(rank):
                peer.send(SIGNAL)

    def wait(self) -> None:
        """The second half: waits for the signals of all others."""
        for rank, peer in self._sockets.items():
            with _answering(rank):
                if not peer.recv(1):
                    raise ConnectionResetError

    def send_file(self, descriptor: int) -> None:
        """Sends a file to all others, which call :meth:`receive_file`. Raises RuntimeError likewise."""
        for rank, peer in self._sockets.items():
            with _answering(rank):
                socket.send_fds(peer, [SIGNAL], [descriptor])

    def receive_file(self, rank: int) -> int:
        """This process's own descriptor of the file that ``rank`` sends. Raises RuntimeError likewise."""
        with _answering(rank):
            _, descriptors, _, _ = socket.recv_fds(self._sockets[rank], 1, 1)
            if not descriptors:
                raise ConnectionResetError
        return descriptors[0]


@contextmanager
def _answering(rank: int | str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RuntimeError(f"rank {rank} does not answer the other ranks of its machine") from error
