"""Fair shares with the scheduler's real core, in virtual time and small."""

from __future__ import annotations

import pytest

from bench.fairness import cases
from bench.fairness.fleet import PRIORITY_SECONDS


def test_weights_of_1_2_and_4_give_tokens_within_5_percent_under_saturation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cases, "WARM_UP_SECONDS", 5.0)
    found = cases.weights(2, 30.0)
    assert [share.weight for share in found] == [1, 2, 4]
    assert all(abs(share.deviation) <= 0.05 for share in found)


@pytest.mark.slow
@pytest.mark.parametrize("load", cases.LOADS)
def test_a_flood_raises_the_p99_of_another_tenants_ttft_by_at_most_30_percent(load: float) -> None:
    assert cases.flood(4, load, 20.0).rise <= 0.3


def test_no_priority_waits_for_ever() -> None:
    waits = cases.priorities(1, 25.0)
    assert waits.requests >= 5
    levels = cases.LATEST - cases.EARLIEST
    assert waits.latest <= waits.earliest + levels * PRIORITY_SECONDS + 2.0
