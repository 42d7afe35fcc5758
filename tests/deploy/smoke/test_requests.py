"""Which streams count as cut."""

from __future__ import annotations

import threading

from deploy.smoke.requests import STORY_TOKENS, Outcome, Stories


def test_a_stream_is_whole_only_with_all_its_tokens_and_no_error() -> None:
    whole = Outcome(0.0, 1.0, tokens=STORY_TOKENS)
    short = Outcome(0.0, 1.0, tokens=STORY_TOKENS - 1)
    ended = Outcome(0.0, 1.0, tokens=STORY_TOKENS, error="Error: the scheduler is gone")
    threads = [threading.Thread() for _ in range(4)]
    for thread in threads:
        thread.start()
    assert Stories([whole], threads[:1]).cut() == []
    cut = Stories([whole, short, ended], threads).cut()
    assert cut == [short.summary, "Error: the scheduler is gone", "it has not ended"]
