"""Groups that cannot be led at once: those of another checkpoint, and one that was stopped meanwhile."""

from __future__ import annotations

import pytest

from albireo.contract.plan import Finish
from albireo.store.interface import CLOSED_LOG_SECONDS
from tests.races.conftest import MakeScene
from tests.races.fake_worker import FakeGroup
from tests.races.test_group_races import close, reasons
from tests.scheduler_svc.core.samples import prompt


def test_no_request_goes_on_with_another_checkpoint(make_scene: MakeScene) -> None:
    """Its token ids are those of the vocabulary that its gateway has read."""
    scene = make_scene()
    scene.submit("a", prompt(10))
    scene.group.answer(scene.group.next_plan())
    scene.group.leave()
    close(scene, scene.group)
    scene.submit("b", prompt(10, 1))
    scene.wait_for(lambda: scene.load().waiting == 2, "they do not wait")
    scene.add_group(fingerprint="another")
    for name in "ab":
        scene.wait_for(lambda name=name: scene.story(name).final is Finish.ERROR, "it goes on")  # type: ignore[misc]
    assert scene.story("a").ids == scene.alone("a").ids[:1]
    assert scene.finish() == []


def test_a_group_of_another_checkpoint_joins_once_the_others_have_gone(
    make_scene: MakeScene, caplog: pytest.LogCaptureFixture
) -> None:
    scene = make_scene()
    other = FakeGroup(scene.cluster, scene.keys, scene.group.shape, fingerprint="another")
    scene.cluster.clock.sleep(2)
    assert other.plan_within(0) is None
    assert (other.epoch, caplog.text.count("is not that of the groups that serve")) == (0, 1)
    scene.group.leave()
    close(scene, scene.group)
    assert other.wait_epoch() == 1
    scene.groups = [other]
    scene.submit("a", prompt(10))
    scene.finish()
    assert scene.story("a") == scene.alone("a")


def test_a_group_that_was_stopped_for_long_before_it_was_led_is_led_afterwards(make_scene: MakeScene) -> None:
    """Its logs, which were closed, have expired by then: it cannot know of it."""
    scene = make_scene()
    other = FakeGroup(scene.cluster, scene.keys, scene.group.shape, fingerprint="another")
    other.stop_renewing(0.5)
    scene.cluster.clock.sleep(CLOSED_LOG_SECONDS + 5)
    assert reasons(scene) == ["its announcement had expired before it was led"]
    other.register()
    scene.group.leave()
    close(scene, scene.group)
    assert other.wait_epoch() == 1
    scene.groups = [other]
    scene.submit("a", prompt(10))
    scene.finish()
