"""Ranks on one machine, each joined to each by a socket: they wake one another, and share descriptors."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import torch
import torch.distributed as dist

TOKEN_BYTES = 16
BELL = b"\0"


class Neighbours:
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
        # Names in Linux' abstract namespace: they go with the sockets, and nobody else can guess them.
        name = "\0albireo-" + bytes(token.tolist()).hex()
        neighbours = cls({})
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{name}-{rank}")
            listener.listen(size)
            dist.barrier()
            reached = all(
                neighbours._call(f"{name}-{peer}", rank, peer, timeout_seconds) for peer in range(rank)
            )
            everyone = torch.tensor([int(reached)])
            dist.all_reduce(everyone, dist.ReduceOp.MIN)
            if not everyone:
                neighbours.close()
                return None
            for _ in range(rank + 1, size):  # they have called already
                connection, _ = listener.accept()
                connection.settimeout(timeout_seconds)
                neighbours._sockets[connection.recv(1)[0]] = connection
        return neighbours

    def _call(self, name: str, rank: int, peer: int, timeout_seconds: float) -> bool:
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

    def meet(self) -> None:
        """Waits until every rank is here. Raises RuntimeError when one is gone, or late."""
        self.ring()
        self.hear()

    def ring(self) -> None:
        """The first half of a meeting: tells the others that this rank is here. Raises likewise."""
        for rank, peer in self._sockets.items():
            with _answering(rank):
                peer.send(BELL)

    def hear(self) -> None:
        """The other half: waits for all others."""
        for rank, peer in self._sockets.items():
            with _answering(rank):
                if not peer.recv(1):
                    raise ConnectionResetError

    def hand_out(self, descriptor: int) -> None:
        """Gives a file to all others, who call :meth:`receive`. Raises RuntimeError likewise."""
        for rank, peer in self._sockets.items():
            with _answering(rank):
                socket.send_fds(peer, [BELL], [descriptor])

    def receive(self, rank: int) -> int:
        """The descriptor, now our own, of the file that ``rank`` hands out."""
        with _answering(rank):
            _, descriptors, _, _ = socket.recv_fds(self._sockets[rank], 1, 1)
            if not descriptors:
                raise ConnectionResetError
        return descriptors[0]


@contextmanager
def _answering(rank: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RuntimeError(f"rank {rank} does not answer its neighbours") from error
