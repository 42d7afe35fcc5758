"""The error ``ProtocolError``: raised for a plan or a result that no correct scheduler or worker writes.

The core raises it where it applies a plan or settles a result; the process of the scheduler ends with it.
"""

from __future__ import annotations


class ProtocolError(Exception):
    """A plan or a result does not fit the scheduler's state. The epoch cannot go on."""
