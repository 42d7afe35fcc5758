"""Stop strings in a text that comes in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress


class StopFinder:
    """Cuts a stream of text at the first stop string, wherever the pieces' borders lie.

    Text that may turn out to begin a stop string is held back; everything else passes at once. A character
    is looked at once as the beginning of a stop string and never again when it is none, so the cost is
    linear in the text; a piece costs a search in it and the longest stop string before it besides.
    """

    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        """``include``: the text ends after the stop string, not before it."""
        self._stops = stops
        self._include = include
        self._longest = max(map(len, stops), default=0)
        self._held = ""
        self._shown = b""  # of each held character: whether it is part of the answer
        self.found: str | None = None

    def push(self, text: str, *, counts: bool = True, hidden: bool = False) -> str:
        """The text that can be given out; sets ``found`` when a stop string has come.

        ``counts``: whether a stop string may end in this piece; one that ends later may begin in it.
        ``hidden``: the piece (a special token's text) can make a stop string, but is no part of the answer.
        """
        before, text = len(self._held), self._held + text
        shown = self._shown + bytes([not hidden]) * (len(text) - before)
        if counts and (hit := self._first(text, before)) is not None:
            index, self.found = hit
            self._held, self._shown = "", b""
            return _visible(text[:index], shown) + (self.found if self._include else "")
        passed = max(0, len(text) - self._longest + 1)
        while passed < len(text) and not self._may_begin(text[passed:]):
            passed += 1
        self._held, self._shown = text[passed:], shown[passed:]
        return _visible(text[:passed], shown)

    def flush(self) -> str:
        """What was held back when the text ends without a stop string."""
        rest = _visible(self._held, self._shown)
        self._held, self._shown = "", b""
        return rest

    def _first(self, text: str, before: int) -> tuple[int, str] | None:
        """Where the stop string begins, and it, that is the first to end after ``before`` characters.

        Of those that end together, the one that begins first.
        """
        hits = [
            (index, stop)
            for stop in self._stops
            if (index := text.find(stop, max(0, before - len(stop) + 1))) >= 0
        ]
        return min(hits, key=lambda hit: (hit[0] + len(hit[1]), hit[0]), default=None)

    def _may_begin(self, text: str) -> bool:
        return any(len(text) < len(stop) and stop.startswith(text) for stop in self._stops)


def _visible(text: str, shown: bytes) -> str:
    """``shown`` may be longer than the text."""
    return "".join(compress(text, shown)) if 0 in shown else text
