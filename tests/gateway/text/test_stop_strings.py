"""Stop strings against their plain definition, over every way of cutting the text into pieces."""

from __future__ import annotations

import itertools
import time
from itertools import compress

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.text.stop_strings import StopStringMatcher

# Few letters, so that stop strings are found, overlap, and repeat themselves.
TEXTS = st.text("abé🦊", max_size=40)
STOPS = st.lists(st.text("abé🦊", min_size=1, max_size=5), max_size=4)


def first_stop(text: str, stops: list[str], after: int = 0) -> tuple[int, str] | None:
    """Where the stop string begins that is complete first, and it; the longest where several are."""
    for end in range(after + 1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            longest = max(found, key=len)
            return end - len(longest), longest
    return None


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


@given(text=TEXTS, stops=STOPS, cuts=st.lists(st.integers(0, 40), max_size=12))
@example(text="abab🦊", stops=["bab🦊", "ab"], cuts=[1, 2, 3])
def test_the_text_ends_before_the_first_complete_stop_string(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    matcher, out = StopStringMatcher(stops), ""
    expected = first_stop(text, stops)
    for piece in pieces_of(text, cuts):
        out += matcher.push(piece)
        if matcher.found is not None:
            break
    if expected is None:
        assert matcher.found is None
        assert out + matcher.flush() == text
    else:
        at, stop = expected
        assert matcher.found == stop
        assert out == text[:at]
        assert matcher.flush() == ""


@given(text=TEXTS, stops=STOPS, cuts=st.lists(st.integers(0, 40), max_size=12))
def test_only_what_may_begin_a_stop_string_is_withheld(text: str, stops: list[str], cuts: list[int]) -> None:
    matcher, seen, out = StopStringMatcher(stops), "", ""
    for piece in pieces_of(text, cuts):
        seen += piece
        out += matcher.push(piece)
        if matcher.found is not None:
            return
        withheld = seen[len(out) :]
        assert seen.startswith(out)
        assert not withheld or any(stop.startswith(withheld) for stop in stops)


@given(
    pieces=st.lists(st.tuples(st.text("ab🦊", max_size=6), st.booleans()), max_size=10),
    stops=STOPS,
    uncounted=st.integers(0, 10),
    include=st.booleans(),
)
@example(pieces=[("aab", False), ("b", False)], stops=["abb"], uncounted=1, include=False)
@example(pieces=[("a", False), ("b", True), ("a", False)], stops=["ba"], uncounted=0, include=True)
def test_pieces_that_do_not_count_and_hidden_ones(
    pieces: list[tuple[str, bool]], stops: list[str], uncounted: int, include: bool
) -> None:
    """A stop string ends in a piece that counts, begins anywhere, and shows nothing that is hidden."""
    matcher, out = StopStringMatcher(stops, include=include), ""
    for index, (text, hidden) in enumerate(pieces):
        out += matcher.push(text, counts=index >= uncounted, hidden=hidden)
        if matcher.found is not None:
            break
    out += matcher.flush()
    whole = "".join(text for text, _ in pieces)
    shown = [not hidden for text, hidden in pieces for _ in text]
    expected = first_stop(whole, stops, after=sum(len(text) for text, _ in pieces[:uncounted]))
    at, stop = expected or (len(whole), None)
    assert matcher.found == stop
    assert out == "".join(compress(whole[:at], shown)) + (stop if stop and include else "")


def test_long_stop_strings_cost_the_same_for_each_character() -> None:
    """Sixteen of the longest that nearly come, all the time."""
    stops = ["ab" * 511 + end for end in "cdefghijklmnopqr"]

    def seconds(tokens: int) -> float:
        matcher = StopStringMatcher(stops)
        began = time.process_time()
        for _ in range(tokens):
            matcher.push("abab")
        return time.process_time() - began

    seconds(1_000)
    short, long = (min(seconds(tokens) for _ in range(3)) for tokens in (1_000, 8_000))
    assert long < 8 * short * 3
    assert long < 2  # 16 µs a token here; each of 1,023 ends was compared with each stop string before
