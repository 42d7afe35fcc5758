"""Stop strings against their plain definition, over every way of cutting the text into pieces."""

from __future__ import annotations

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.stop import StopFinder

# Few letters, so that stop strings are found, overlap, and repeat themselves.
TEXTS = st.text("abé🦊", max_size=40)
STOPS = st.lists(st.text("abé🦊", min_size=1, max_size=5), max_size=4)


def first_stop(text: str, stops: list[str]) -> tuple[int, str] | None:
    """Where the stop string begins that is complete first, and it; the longest where several are."""
    for end in range(1, len(text) + 1):
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
    finder, out = StopFinder(stops), ""
    expected = first_stop(text, stops)
    for piece in pieces_of(text, cuts):
        out += finder.push(piece)
        if finder.found is not None:
            break
    if expected is None:
        assert finder.found is None
        assert out + finder.flush() == text
    else:
        at, stop = expected
        assert finder.found == stop
        assert out == text[:at]
        assert finder.flush() == ""


@given(text=TEXTS, stops=STOPS, cuts=st.lists(st.integers(0, 40), max_size=12))
def test_only_what_may_begin_a_stop_string_is_held_back(text: str, stops: list[str], cuts: list[int]) -> None:
    finder, seen, out = StopFinder(stops), "", ""
    for piece in pieces_of(text, cuts):
        seen += piece
        out += finder.push(piece)
        if finder.found is not None:
            return
        held = seen[len(out) :]
        assert seen.startswith(out)
        assert not held or any(stop.startswith(held) for stop in stops)
