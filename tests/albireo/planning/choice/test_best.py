"""The choice: highest throughput within the limits, and the nearest split where none keeps them."""

from __future__ import annotations

from albireo.planning.choice.best import Limits, choose
from albireo.planning.choice.split import Split
from tests.albireo.planning.choice.models import outcome

FAST = outcome(Split(1, 8), tokens_per_second=9000.0, ttft={"p99": 3.0}, tpot={"p99": 0.09})
MIDDLE = outcome(Split(2, 4), tokens_per_second=8000.0, ttft={"p99": 1.0}, tpot={"p99": 0.05})
QUICK = outcome(Split(8, 1), tokens_per_second=5000.0, ttft={"p99": 0.3}, tpot={"p99": 0.02})
ALL = [FAST, MIDDLE, QUICK]


def test_without_limits_the_highest_throughput_wins() -> None:
    choice = choose(ALL, Limits())
    assert choice.best is FAST
    assert choice.within


def test_a_limit_excludes_what_exceeds_it() -> None:
    assert choose(ALL, Limits(tpot_p99=0.05)).best is MIDDLE
    assert choose(ALL, Limits(ttft_p99=0.5)).best is QUICK
    assert choose(ALL, Limits(ttft_p99=2.0, tpot_p99=0.03)).best is QUICK


def test_where_no_split_keeps_the_limits_the_nearest_is_named_as_such() -> None:
    choice = choose(ALL, Limits(ttft_p99=0.9, tpot_p99=0.015))
    assert choice.best is QUICK
    assert not choice.within


def test_of_equal_throughputs_the_lower_tpot_wins() -> None:
    close = outcome(Split(4, 2), tokens_per_second=8900.0, tpot={"p99": 0.03})
    assert choose([*ALL, close], Limits()).best is close


def test_a_workload_of_single_tokens_has_no_tpot_to_limit() -> None:
    only = outcome(tpot={})
    assert choose([only], Limits(tpot_p99=0.001)).within


def test_a_split_in_which_requests_fail_is_chosen_only_where_they_fail_in_all() -> None:
    failing = outcome(Split(4, 2), tokens_per_second=10000.0, errors={"the queue is full": 1})
    assert choose([failing, *ALL], Limits()).best is FAST
    assert choose([failing, *ALL], Limits(ttft_p99=0.1)).best is QUICK
    assert choose([failing], Limits()).best is failing
