"""What holds once all requests are over."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .world import World


def check_nothing_left(world: World) -> None:
    """Everything has ended, and all slots and blocks are free."""
    assert not [name for name, story in world.stories.items() if not story.final], "never ended"
    stats = world.core.stats()
    assert stats.waiting == stats.running == stats.steps_in_flight == 0
    for group in world.groups.values():
        assert group.core.stats().slots_free == group.shape.max_seqs
        assert group.core.stats().blocks_free == group.shape.num_blocks
        assert not group.worker.slots
    assert world.core.next_deadline() is None
    if not any(story.announced for story in world.stories.values()):
        wasted = sum(group.worker.wasted_rows for group in world.groups.values())
        assert stats.wasted_rows == world.wasted_rows + wasted
        assert stats.late_rows == 0
