"""The ranks of a group as the service sees them. On a device a :class:`.tp_group.TPGroup` is one."""

from __future__ import annotations

from typing import Protocol


class Ranks(Protocol):
    """A rank's number among them, from 0, and how many there are."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def begun(self) -> int:
        """Collectives of steps that this rank has entered so far; a group of one has none."""
        ...

    @property
    def ended(self) -> int:
        """Those of them that it has left."""
        ...

    def barrier(self) -> None:
        """Waits until all ranks have called it."""
        ...
