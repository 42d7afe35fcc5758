"""The pace of tokens that are computed with streamed KV, as the usage tells it."""

from __future__ import annotations

import pytest

from gateway.streams import streamed_pace
from gateway.streams.streamed_pace import StreamedPace


def test_the_pace_is_the_mean_time_from_one_token_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 10.5, 12.0])
    monkeypatch.setattr(streamed_pace.time, "monotonic", lambda: next(times))
    pace = StreamedPace()
    assert (pace.tokens, pace.token_seconds) == (0, 0.0)
    pace.add()
    assert (pace.tokens, pace.token_seconds) == (1, 0.0)
    pace.add()
    pace.add()
    assert (pace.tokens, pace.token_seconds) == (3, 1.0)
