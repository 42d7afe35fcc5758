"""The reasons: the terms in which the neighbours differ, KV memory that is short, and limits."""

from __future__ import annotations

from albireo.planning.choice.best import Limits, choose
from albireo.planning.choice.explanation import explain
from albireo.planning.choice.split import Split
from tests.albireo.planning.choice.models import outcome

LOW = outcome(
    Split(1, 8),
    tokens_per_second=2000.0,
    terms={"weights": 3.4e-3, "kv": 0.3e-3, "sampling": 0.3e-3},
    preemptions=12,
    recomputed=0.18,
    kv_headroom=0.0,
    rows=20.0,
    concurrency=32,
)
BEST = outcome(Split(2, 4), terms={"weights": 1.5e-3, "kv": 0.3e-3, "sampling": 0.2e-3})
HIGH = outcome(
    Split(4, 2),
    tokens_per_second=3200.0,
    terms={"weights": 1.3e-3, "kv": 0.31e-3, "sampling": 0.2e-3, "collectives": 0.69e-3},
)
FAR = outcome(Split(8, 1), tokens_per_second=1000.0, terms={"collectives": 8e-3})


def test_each_neighbour_is_compared_by_the_terms_that_differ_most() -> None:
    outcomes = [LOW, BEST, HIGH, FAR]
    reasons = explain(choose(outcomes, Limits()), outcomes, Limits())
    assert reasons == [
        "8x1 has 50% less throughput: device µs per token: 4000, here 2000 (weights +1900, sampling +100).",
        "8x1: its KV memory allows 20 decoding rows a step of 32 requests in flight, and weights are read "
        "for fewer rows; 12 preemptions in a group, and prefill computes 18% more tokens than the prompts "
        "have.",
        "2x4 has 20% less throughput: device µs per token: 2500, here 2000 (collectives +690, weights -200).",
    ]


def test_the_shortage_of_the_best_itself_is_named() -> None:
    short = outcome(Split(2, 4), preemptions=3)
    assert explain(choose([short], Limits()), [short], Limits()) == ["4x2: 3 preemptions in a group."]


def test_what_a_limit_costs_is_named() -> None:
    limits = Limits(tpot_p99=0.03)
    slow = outcome(Split(2, 4), tpot={"p99": 0.05})
    quick = outcome(Split(4, 2), tokens_per_second=3200.0, tpot={"p99": 0.02})
    reasons = explain(choose([slow, quick], limits), [slow, quick], limits)
    assert reasons[0] == "4x2 would have 25% more throughput, but exceeds TPOT P99."
    assert reasons[1].startswith("4x2 has 25% more throughput")


def test_limits_that_no_split_keeps_are_named_with_the_excess() -> None:
    limits = Limits(tpot_p99=0.02)
    only = outcome(tpot={"p99": 0.05})
    [reason] = explain(choose([only], limits), [only], limits)
    assert reason == "No split keeps the limits. 4x2 comes nearest: TPOT P99 is 2.50 times its limit."


def test_equal_throughput_is_called_equal() -> None:
    same = outcome(Split(4, 2), tpot={"p99": 0.2})
    [reason] = explain(choose([BEST, same], Limits()), [BEST, same], Limits())
    assert reason == "2x4 has about the same throughput, and a TPOT P99 of 200.0 ms, here 40.0 ms."


def test_slots_that_are_fewer_than_the_requests_in_flight_are_named() -> None:
    full = outcome(slots=64, concurrency=128, rows=63.0)
    [reason] = explain(choose([full], Limits()), [full], Limits())
    assert reason == "4x2: its 64 slots hold a part of its 128 requests in flight."
