"""What is known of a request outside the core."""

from __future__ import annotations

from dataclasses import dataclass, field

from albireo.contract.plan import Finish, Submission


def family(name: str) -> str:
    """Id of the request that a branch belongs to."""
    return name.split("#")[0]


@dataclass
class Story:
    """One branch of a submitted request, as its gateway and the reader of the results log see it."""

    submission: Submission
    deadline: float | None
    read: list[int] = field(default_factory=list)  # what the reader of the results log has seen
    final: Finish = Finish.NONE  # the first end that the reader has seen
    settled_final: bool = False  # the core has been given the finishing row
    announced: bool = False  # a plan has carried its `ended`
    cancelled: bool = False
    refused: bool = False
    failing: bool = False  # the worker ends it with an error
    admitted: bool = False

    @property
    def open(self) -> bool:
        """Whether the core takes it for live."""
        return not (self.settled_final or self.announced or self.refused)
