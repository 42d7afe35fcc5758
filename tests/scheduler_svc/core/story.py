"""What is known of a request outside the core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from albireo.contract.plan import Finish, Submission

PROGRESS = 16
"""Outputs after which a request is not taken for the cause of its group's death."""


def family(name: str) -> str:
    """Id of the request that a branch belongs to."""
    return name.split("#")[0]


@dataclass
class Story:
    """One branch of a submitted request, as its gateway and the reader of the results logs see it."""

    submission: Submission
    deadline: float | None
    context: int = 10_000  # tokens of the largest group that it was accepted by
    read: list[int] = field(default_factory=list)  # what the reader of the results logs has seen
    final: Finish = Finish.NONE  # the first end that the reader has seen
    settled_final: bool = False  # the core has been given the finishing row
    announced: bool = False  # a plan or a notice has carried its `ended`
    cancelled: bool = False
    refused: bool = False
    homeless: bool = False  # no tier takes its blocks, and it does not fit without
    failing: bool = False  # the worker ends it with an error
    admitted: bool = False
    deaths: int = 0  # of groups in a row that it may be the cause of
    begun: int = 0  # outputs that it had at its last admission

    @property
    def open(self) -> bool:
        """Whether the core takes it for live."""
        return not (self.settled_final or self.announced or self.refused)

    def check_reason(self, reason: Finish, now: float, *, failed: bool) -> None:
        """Whether it may end for this reason while it waits. ``failed``: a branch of its request has
        ended too many groups."""
        if reason is Finish.CANCELLED:
            assert self.cancelled
        elif reason is Finish.ERROR:
            assert self.refused or self.homeless or failed or len(self.submission.prompt) >= self.context
        else:
            assert reason is Finish.DEADLINE
            assert self.deadline is not None
            assert self.deadline <= now

    @property
    def progressed(self) -> bool:
        """Whether it has brought enough since its last admission."""
        return len(self.read) >= self.begun + PROGRESS


def has_failed(stories: Mapping[str, Story], branch: str) -> bool:
    """Whether a request, by this branch or another, has ended too many groups."""
    return any(story.deaths == 3 for name, story in stories.items() if family(name) == family(branch))
