"""The reader of the results logs, as a gateway is one."""

from __future__ import annotations

from collections.abc import Mapping

from albireo.contract.plan import Finish, Plan, StepResult

from .story import Story
from .worker_model import solo


def read_result(
    result: StepResult, plan: Plan, *, stories: Mapping[str, Story], by_incarnation: Mapping[int, str]
) -> None:
    """Adds a step's result to the stories: tokens are those of a solo run, and nothing follows an end."""
    rows = zip(result.incarnations, result.ids, result.finishes, strict=True)
    for incarnation, token, finish in rows:
        story = stories[by_incarnation[incarnation]]
        assert not story.final, "a row after the end"
        story.read.append(token)
        expected, why = solo(story.submission.prompt, story.submission.sampling, story.context)
        assert story.read == expected[: len(story.read)]
        if finish == Finish.ERROR:
            assert story.failing
            story.final = Finish.ERROR
        elif finish:
            assert (story.read, Finish(finish)) == (expected, why)
            story.final = why
    for ended in plan.ended:
        story = stories[ended.request_id]
        story.final = story.final or ended.reason
