"""Plans of streamed slots that do not fit the state are refused by a core that follows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from albireo.contract.plan import Plan
from albireo.contract.tiers import Offload, Span
from scheduler_svc.core.errors import ProtocolError

from .test_streamed_requests import LAYERS, streaming, text
from .world import World


def until(w: World, found: str) -> Plan:
    """The first plan that has something of that kind; the follower has not seen it."""
    follower, w.group.follower = w.group.follower, None
    for _ in range(100):
        plan = w.group.plan(w.now)
        if plan is not None and getattr(plan, found):
            w.group.follower = follower
            return plan
        if plan is not None:
            assert follower is not None
            follower.apply(plan)
        while w.group.published:
            result = w.group.run()
            w.group.settle()
            assert follower is not None
            follower.settle(result)
    raise AssertionError(f"no plan has {found}")


def refused(w: World, plan: Plan) -> None:
    assert w.group.follower is not None
    with pytest.raises(ProtocolError):
        w.group.follower.apply(plan)


def scene() -> World:
    w = streaming(ahead=1)
    w.submit("long", text(600), max_tokens=5, ignore_eos=True)
    w.core.place()
    assert w.follower is not None
    return w


@pytest.mark.parametrize(
    "change",
    [
        lambda o: o._replace(frames=o.frames[:-1], keys=o.keys[:-1]),  # too few for the grants that follow
        lambda o: o._replace(frames=o.frames[::-1]),
        lambda o: o._replace(keys=(b"x" * 16, *o.keys[1:])),
        lambda o: o._replace(tier=1),
        lambda o: o._replace(slot=3),
        lambda o: o._replace(frames=(*o.frames, 79), keys=(*o.keys, b"x" * 16)),
        lambda o: o._replace(frames=(), keys=()),
    ],
)
def test_an_offload_names_frames_that_hold_the_next_blocks(change: object) -> None:
    w = scene()
    plan = until(w, "offloads")
    (offload,) = plan.offloads
    assert callable(change)
    changed: Offload = change(offload)
    refused(w, replace(plan, offloads=(changed,)))


@pytest.mark.parametrize("block", [-1, -1000, 16])
def test_a_spill_names_blocks_that_there_are(block: int) -> None:
    w = scene()
    plan = until(w, "spills")
    spill = plan.spills[0]
    changed = spill._replace(blocks=(block, *spill.blocks[1:]))
    refused(w, replace(plan, spills=(changed, *plan.spills[1:])))


@pytest.mark.parametrize(
    "change",
    [
        {"start": 1},
        {"count": 0},
        {"count": 1000},
        {"first_layer": 1},
        {"last_layer": LAYERS + 1},
        {"last_layer": 0},
        {"slot": 2},
    ],
)
def test_a_span_is_the_next_one_of_its_slot(change: dict[str, int]) -> None:
    w = scene()
    plan = until(w, "spans")
    (span,) = plan.spans
    refused(w, replace(plan, spans=(replace(span, **change),)))


def test_a_slot_has_one_span_in_a_step() -> None:
    w = scene()
    plan = until(w, "spans")
    (span,) = plan.spans
    first = replace(span, last_layer=1)
    refused(w, replace(plan, spans=(first, replace(first, first_layer=1, last_layer=2)), digest=None))


def test_rows_go_on_where_the_last_span_ended() -> None:
    w = scene()
    plan = until(w, "spans")
    (span,) = plan.spans
    assert w.group.follower is not None
    w.group.follower.apply(replace(plan, spans=(replace(span, last_layer=1),), digest=None))
    for wrong in (span, Span(span.slot, span.start, span.count - 1, 1, LAYERS)):
        later = Plan(plan.epoch, plan.step + 1, spans=(wrong,))
        refused(w, later)
