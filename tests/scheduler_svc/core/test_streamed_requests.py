"""Requests that are longer than the blocks of a group: what does not fit is read from frames."""

from __future__ import annotations

import pytest

from albireo.contract.plan import BLOCK_SIZE, Finish, GroupShape, SamplingParams, Submission
from albireo.contract.tiers import TierShape
from scheduler_svc.core import Limits, SchedulerCore
from scheduler_svc.core.stream_pace import STREAM_SHARE

from .tier_model import Faults
from .world import World

LAYERS = 4


def streaming(
    *,
    num_blocks: int = 16,
    frames: int = 80,
    read: float = 1e-4,
    chunk: int = 64,
    ahead: int = 2,
    max_seqs: int = 4,
    longest: int = 1000,
) -> World:
    """One group whose requests may be longer than its blocks hold."""
    world = World(Limits(128, max_seqs, chunk, ahead, digest_every=1), followed=True)
    tiers = (TierShape("disk", frames, read, 1e-5),)
    world.join("g0", GroupShape(num_blocks, max_seqs, longest, tiers, LAYERS))
    return world


def text(tokens: int, salt: int = 0) -> tuple[int, ...]:
    return tuple((salt * 7 + 3 * i * i + i) % 23 + 1 for i in range(tokens))


def test_a_prompt_of_four_times_the_blocks_brings_its_tokens() -> None:
    w = streaming()
    w.submit("long", text(4 * 16 * 16 - 100), max_tokens=40, ignore_eos=True)
    w.drain(max_steps=2000)
    assert len(w.stories["long"].read) == 40
    assert any(plan.offloads for plan in w.plans)


def test_a_slot_alone_runs_all_layers_in_each_step() -> None:
    w = streaming()
    w.submit("long", text(600), max_tokens=5, ignore_eos=True)
    w.drain(max_steps=500)
    spans = [span for plan in w.plans for span in plan.spans]
    assert spans
    assert {(span.first_layer, span.last_layer) for span in spans} == {(0, LAYERS)}


def test_a_row_that_outgrows_the_blocks_is_streamed() -> None:
    w = streaming()
    w.submit("long", text(100), max_tokens=400, ignore_eos=True)
    w.drain(max_steps=3000)
    assert len(w.stories["long"].read) == 400
    assert any(plan.offloads for plan in w.plans)


def test_the_prefix_of_a_long_prompt_is_streamed_without_a_fetch() -> None:
    w = streaming()
    for name in ("first", "again"):
        w.submit(name, text(600), max_tokens=3, ignore_eos=True)
        w.drain(max_steps=500)
    (admission,) = [a for plan in w.plans for a in plan.admissions if a.request_id == "again"]
    assert admission.num_cached >= 400
    assert not any(plan.fetches for plan in w.plans)
    stats = w.group.core.stats()
    assert stats.prefix_hit_tokens == stats.tiers[0].prefix_hit_tokens == admission.num_cached


def test_long_requests_run_together_with_others() -> None:
    w = streaming()
    for number in range(3):
        w.submit(f"long{number}", text(400 + number, number), max_tokens=8, ignore_eos=True)
        w.submit(f"short{number}", text(20, 10 + number), max_tokens=60, ignore_eos=True)
    w.drain(max_steps=5000)
    assert all(len(story.read) in (8, 60) for story in w.stories.values())


def test_a_slot_among_others_runs_as_many_layers_as_its_share_of_the_steps_allows() -> None:
    w = streaming(num_blocks=40, read=3e-4, chunk=16, ahead=1)  # a layer of 10 streamed blocks: 0.75 ms
    w.submit("long", text(44 * BLOCK_SIZE), max_tokens=4, ignore_eos=True)
    while not w.stories["long"].read:
        w.step()
    stats = w.group.core.stats()
    assert stats.streamed == 1
    assert 0 < stats.streamed_blocks <= 44
    w.submit("short", text(20, 9), max_tokens=200, ignore_eos=True)
    while not w.stories["short"].read:
        w.step()
    begun, layers = len(w.plans), list[int]()
    while len(w.stories["long"].read) < 4:
        w.step()
    for plan in w.plans[begun:]:
        layers += [span.last_layer - span.first_layer for span in plan.spans]
    streamed = 44 - 10
    seconds = sum(layers) * streamed * 3e-4 / LAYERS
    steps = len(w.plans) - begun
    assert sum(layers) >= LAYERS * 3
    assert set(layers) <= {1, 2}
    allowed = STREAM_SHARE * w.group.core.speed.step_seconds * steps
    assert 0.4 * allowed < seconds < 1.1 * allowed + LAYERS * streamed * 3e-4 / LAYERS
    w.drain(max_steps=500)


def test_of_two_slots_that_need_all_frames_the_later_one_gives_way() -> None:
    w = streaming(frames=40, num_blocks=12, longest=600, chunk=32)
    w.submit("first", text(200), max_tokens=300, ignore_eos=True)
    w.submit("second", text(210, 3), max_tokens=200, ignore_eos=True)
    w.drain(max_steps=5000)
    assert [len(w.stories[name].read) for name in ("first", "second")] == [300, 200]
    assert w.group.core.stats().preemptions > 0


def test_a_slot_that_is_to_give_blocks_may_be_preempted_instead() -> None:
    w = streaming(num_blocks=40, frames=200, chunk=32, max_seqs=8)
    for number in range(6):
        w.submit(f"short{number}", text(20, number), max_tokens=150, ignore_eos=True)
    w.step()
    w.submit("long", text(700), max_tokens=20, ignore_eos=True)
    w.drain(max_steps=5000)
    given = [plan for plan in w.plans if plan.offloads and plan.num_decodes]
    assert given
    assert w.group.core.stats().preemptions > 0


@pytest.mark.parametrize("others", [0, 4])
def test_a_tier_in_which_a_request_just_fits_keeps_the_blocks_that_it_needs_next(others: int) -> None:
    w = streaming(num_blocks=24, frames=48, longest=(48 + 24 // 4) * BLOCK_SIZE)
    w.submit("long", text(788), max_tokens=44, ignore_eos=True)
    for number in range(others):
        w.submit(f"short{number}", text(40, number + 1), max_tokens=100, ignore_eos=True)
    w.drain(max_steps=3000)
    assert len(w.stories["long"].read) == 44


def test_a_block_is_copied_that_is_not_in_the_prefix_cache() -> None:
    """It stood back for another one with the same content, which the plan that copies it grants anew."""
    w = streaming(num_blocks=24, frames=48, chunk=128, ahead=3, max_seqs=8, longest=864)
    w.submit("long", text(851), max_tokens=9, ignore_eos=True)
    for number, (prompt, outputs) in enumerate([(26, 26), (534, 34), (639, 10)], 15):
        w.submit(f"other{number}", text(prompt, number), max_tokens=outputs, ignore_eos=True)
    w.drain(max_steps=3000)


@pytest.mark.parametrize("prompt", [500, 150])
@pytest.mark.parametrize("silent", [False, True])
def test_a_request_ends_whose_blocks_no_tier_takes(prompt: int, silent: bool) -> None:
    w = streaming()
    w.group.worker.tiers.faults = Faults(spills=10**9, silent=silent)
    w.submit("long", text(prompt), max_tokens=400, ignore_eos=True)
    w.stories["long"].homeless = True
    w.drain(max_steps=6000)
    assert w.stories["long"].final is Finish.ERROR


def test_a_request_goes_on_whose_blocks_a_tier_takes_at_times() -> None:
    w = streaming()
    w.submit("long", text(300), max_tokens=200, ignore_eos=True)
    for _ in range(30):
        w.group.worker.tiers.faults = Faults(spills=1)
        for _ in range(20):
            w.step()
    w.drain(max_steps=3000)
    assert len(w.stories["long"].read) == 200


def test_branches_of_a_long_prompt_are_streamed_one_after_the_other() -> None:
    w = streaming()
    w.submit("long", text(400), max_tokens=5, ignore_eos=True, n=3)
    w.drain(max_steps=3000)
    cached = [a.num_cached for plan in w.plans for a in plan.admissions]
    assert cached[0] == 0
    assert all(tokens >= 300 for tokens in cached[1:])


def test_without_a_prefix_cache_requests_are_no_longer_than_the_blocks() -> None:
    limits = Limits(128, 4, 64, 2, prefix_cache=False)
    shape = GroupShape(16, 4, 1000, (TierShape("disk", 80, 1e-4, 1e-5),), LAYERS)
    core = SchedulerCore(limits, epoch=1, salt=b"")
    assert core.join("g0", shape).shape.max_model_len == 256
    with pytest.raises(ValueError, match="1 to 255"):
        core.submit(Submission("long", text(300), SamplingParams(max_tokens=1, seed=0)), 0.0)
