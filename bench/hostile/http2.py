"""An HTTP/2 client that can break the rules: it may never read, never end a request, or send garbage.

Frames as in RFC 9113, header blocks as in RFC 7541 with nothing but literals, so that no table is kept: the
settings announce a table of size 0.
"""

from __future__ import annotations

import asyncio
import struct
from collections import defaultdict
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
DEFAULT_WINDOW = 65_535
STATUS = b"grpc-status"


class Stream:
    """The response to one call."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.status: int | None = None  # a gRPC status code, where the server sent one
        self.reset: int | None = None  # an HTTP/2 error code, where it cut the stream
        self.over = asyncio.Event()


class Connection:
    """A connection of the client; a task reads frames into its ``streams``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, window: int) -> None:
        self._reader, self._writer = reader, writer
        self._next_id = 1
        self.streams: defaultdict[int, Stream] = defaultdict(Stream)
        self.closed = asyncio.Event()
        # HEADER_TABLE_SIZE 0, INITIAL_WINDOW_SIZE
        settings = struct.pack("!HIHI", 1, 0, 4, window)
        self._writer.write(PREFACE + frame(SETTINGS, 0, 0, settings))
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, host: str, port: int, *, window: int = DEFAULT_WINDOW) -> Self:
        """``window``: bytes that the server may send on a stream; no more are ever granted."""
        return cls(*await asyncio.open_connection(host, port), window=window)

    def begin(
        self, path: str, *, authority: str = "test", headers: tuple[tuple[str, bytes], ...] = ()
    ) -> int:
        """Sends a call's headers; returns its stream."""
        stream, self._next_id = self._next_id, self._next_id + 2
        block = b"".join(
            literal(name.encode(), value)
            for name, value in (
                (":method", b"POST"),
                (":scheme", b"http"),
                (":path", path.encode()),
                (":authority", authority.encode()),
                ("content-type", b"application/grpc"),
                ("te", b"trailers"),
                *headers,
            )
        )
        self._writer.write(frame(HEADERS, END_HEADERS, stream, block))
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = True) -> None:
        """Sends bytes as they are; see ``message``. At most 16 KiB."""
        self._writer.write(frame(DATA, END_STREAM if end else 0, stream, data))

    def reset(self, stream: int) -> None:
        """Cancels a call."""
        self._writer.write(frame(RST_STREAM, 0, stream, struct.pack("!I", 8)))

    def raw(self, data: bytes) -> None:
        """Sends bytes that need not be a frame."""
        self._writer.write(data)

    async def drain(self) -> None:
        await self._writer.drain()

    async def over(self, stream: int, seconds: float = 10) -> Stream:
        """Waits for the call's end. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            await self.streams[stream].over.wait()
        return self.streams[stream]

    async def close(self) -> None:
        self._writer.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                length, kind, flags = int.from_bytes(head[:3]), head[3], head[4]
                stream = int.from_bytes(head[5:]) & 0x7FFF_FFFF
                self._take(kind, flags, stream, await self._reader.readexactly(length))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.closed.set()
            for stream_left in self.streams.values():
                stream_left.over.set()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind in (SETTINGS, PING) and not flags & ACK:
            self._writer.write(frame(kind, ACK, 0, payload if kind == PING else b""))
        if not stream:
            return
        found = self.streams[stream]
        if kind == DATA:
            found.data += payload
            if payload:  # of the connection alone: the stream's own window stays as it is
                self._writer.write(frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", len(payload))))
        elif kind == HEADERS:
            found.status = status_in(payload, found.status)
        elif kind == RST_STREAM:
            found.reset = int.from_bytes(payload)
        if kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM):
            found.over.set()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def message(data: bytes, *, compressed: bool = False) -> bytes:
    """A gRPC message with its prefix."""
    return bytes((compressed,)) + len(data).to_bytes(4) + data


def literal(name: bytes, value: bytes) -> bytes:
    """A header that enters no table."""
    return b"\x00" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes((len(text),)) + text
    rest, out = len(text) - 127, b"\x7f"
    while rest > 127:
        out, rest = out + bytes((rest & 127 | 128,)), rest >> 7
    return out + bytes((rest,)) + text


def status_in(block: bytes, otherwise: int | None) -> int | None:
    """The gRPC status of a block of literals."""
    at = block.find(STATUS)
    if at < 0:
        return otherwise
    at += len(STATUS)
    return int(block[at + 1 : at + 1 + block[at]])
