"""How a rank ends. The service makes one of these; its stages and the renewal thread share it."""

from __future__ import annotations

from dataclasses import dataclass

from albireo.runtime.clock import Clock, Event
from albireo.store.interface import Fenced


@dataclass(frozen=True, slots=True)
class Ending:
    """Three events, which happen in this order; a rank that fails leaves out the first.

    A rank that is asked to stop finishes its steps first: rank 0 those that it has staged, the others all
    until the scheduler has closed the group.
    """

    asked: Event  # the rank is asked to stop
    over: Event  # the stages end, whatever is left to do
    done: Event  # the main thread has left the service

    @classmethod
    def of(cls, asked: Event, clock: Clock) -> Ending:
        return cls(asked, clock.event(), clock.event())


def closed(reason: str) -> Fenced:
    """The error of a rank whose group the scheduler has closed."""
    return Fenced(f"the scheduler has closed this group: {reason or 'it gave no reason'}")
