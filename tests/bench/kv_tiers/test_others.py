"""Streams that decode while something else is measured."""

from __future__ import annotations

from bench.kv_tiers.others import tokens_between
from bench.streams import Received


def test_tokens_of_all_streams_count_in_the_time_in_which_they_came() -> None:
    first = Received(0, "a", arrivals=[1.0, 2.0, 3.0], counts=[1, 2, 4])
    second = Received(1, "b", arrivals=[1.5], counts=[8])
    assert tokens_between([first, second], 1.5, 3.0) == 10
    assert tokens_between([first, second], 0.0, 9.0) == 15
