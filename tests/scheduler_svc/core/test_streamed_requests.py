"""Requests that are longer than the blocks of a group: what does not fit is read from frames."""

from __future__ import annotations

from albireo.contract.plan import GroupShape
from albireo.contract.tiers import TierShape
from scheduler_svc.core import Limits

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


def test_long_requests_run_together_with_others() -> None:
    w = streaming()
    for number in range(3):
        w.submit(f"long{number}", text(400 + number, number), max_tokens=8, ignore_eos=True)
        w.submit(f"short{number}", text(20, 10 + number), max_tokens=60, ignore_eos=True)
    w.drain(max_steps=5000)
    assert all(len(story.read) in (8, 60) for story in w.stories.values())
