"""Chunks, budgets, and who comes first."""

from __future__ import annotations

from albireo.contract.plan import Chunk

from .samples import prompt
from .world import World, world


def order_of_admission(w: World) -> list[str]:
    return [admission.request_id for plan in w.plans for admission in plan.admissions]


def test_a_long_prompt_is_prefilled_in_chunks() -> None:
    w = world(chunk=32)
    w.submit("a", prompt(70), max_tokens=3, ignore_eos=True)
    w.drain(10)
    chunks = [chunk for plan in w.plans for chunk in plan.chunks]
    assert chunks == [Chunk(0, 0, 32), Chunk(0, 32, 32), Chunk(0, 64, 6)]
    assert [plan.num_decodes for plan in w.plans] == [0, 0, 0, 1, 1, 0]


def test_blocks_are_granted_as_they_are_needed() -> None:
    w = world(chunk=32)
    w.submit("a", prompt(40), max_tokens=12, ignore_eos=True)
    w.drain(20)
    assert [sum(len(grant.blocks) for grant in plan.grants) for plan in w.plans[:3]] == [2, 1, 0]
    # 40 prompt tokens and the KV of 11 outputs: the fourth block comes with the 49th token.
    assert sum(len(grant.blocks) for plan in w.plans for grant in plan.grants) == 4


def test_decodes_come_before_chunks_and_chunks_before_admissions() -> None:
    w = world(tokens=20, chunk=16)
    w.submit("a", prompt(8), max_tokens=30, ignore_eos=True)
    w.step()
    w.submit("b", prompt(40, 1), max_tokens=2)
    w.submit("c", prompt(9, 2), max_tokens=2)
    w.step()
    plan = w.plans[-1]
    assert plan.num_decodes == 1
    assert plan.chunks == (Chunk(1, 0, 16), Chunk(2, 0, 3))
    w.step()
    assert w.plans[-1].chunks == (Chunk(1, 16, 16), Chunk(2, 3, 3))
    w.step()
    assert w.plans[-1].chunks == (Chunk(1, 32, 8), Chunk(2, 6, 3))
    w.drain(60)


def test_all_decodes_fit_where_the_budget_is_the_number_of_sequences() -> None:
    w = world(tokens=4, chunk=4, max_seqs=4)
    for number in range(6):
        w.submit(f"r{number}", prompt(10, number), max_tokens=20, ignore_eos=True)
    w.drain(200)
    assert max(plan.num_decodes for plan in w.plans) == 4


def test_first_come_first_served() -> None:
    w = world(max_seqs=1)
    for number in range(4):
        w.submit(f"r{number}", prompt(5, number), max_tokens=2)
    w.drain(40)
    assert order_of_admission(w) == ["r0", "r1", "r2", "r3"]


def test_a_priority_buys_a_head_start() -> None:
    w = world(max_seqs=1, priority_seconds=10.0)
    w.submit("normal", prompt(5), max_tokens=2)
    w.advance(5)
    w.submit("urgent", prompt(5, 1), max_tokens=2, priority=-1)
    w.submit("idle", prompt(5, 2), max_tokens=2, priority=1)
    w.advance(11)
    w.submit("late", prompt(5, 3), max_tokens=2)
    w.drain(40)
    assert order_of_admission(w) == ["urgent", "normal", "idle", "late"]


def test_no_request_starves() -> None:
    w = world(max_seqs=1, priority_seconds=3.0)
    w.submit("patient", prompt(5), max_tokens=1, priority=2)
    for second in range(12):  # twice as many as can be served
        w.submit(f"r{second}", prompt(5, second + 1), max_tokens=1)
        w.submit(f"s{second}", prompt(5, second + 1), max_tokens=1)
        w.step()
        w.advance(1.0)
    w.drain(100)
    # Two levels of three seconds: those that came within six seconds go first, later ones do not.
    assert order_of_admission(w).index("patient") == 12


def test_the_window_is_never_exceeded() -> None:
    w = world(ahead=2)
    w.submit("a", prompt(5), max_tokens=9, ignore_eos=True)
    assert w.plan()
    assert w.plan()
    assert w.plan() is None
    w.run()
    assert w.plan() is None
    w.settle()
    assert w.plan()
    w.drain(40)


def test_nothing_to_do_is_no_plan() -> None:
    w = world()
    assert w.plan() is None
    w.submit("a", prompt(5), max_tokens=1)
    w.drain(5)
    assert w.plan() is None


def test_low_slots_are_used_first() -> None:
    w = world(max_seqs=4)
    for number in range(3):
        w.submit(f"r{number}", prompt(5, number), max_tokens=3 + number, ignore_eos=True)
    w.step()
    assert [admission.slot for admission in w.plans[0].admissions] == [0, 1, 2]
    for _ in range(3):
        w.step()
    w.submit("next", prompt(5, 9), max_tokens=2)
    w.drain(20)
    assert [a.slot for plan in w.plans for a in plan.admissions if a.request_id == "next"] == [0]


def test_departures_count_once() -> None:
    w = world(max_seqs=1)
    w.submit("a", prompt(5), max_tokens=2, ignore_eos=True)
    w.submit("b", prompt(5, 1), max_tokens=2)
    assert w.core.take_departures() == 0
    w.step()
    assert (w.core.take_departures(), w.core.take_departures()) == (1, 0)
    w.cancel("b")
    w.cancel("a")
    assert w.core.take_departures() == 1
    w.departures = 2
    w.drain(5)
