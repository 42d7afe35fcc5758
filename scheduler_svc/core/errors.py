"""The error of a log that cannot be true."""

from __future__ import annotations


class ProtocolError(Exception):
    """A plan or a result does not fit the scheduler's state. The epoch cannot go on."""
