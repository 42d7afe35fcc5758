"""Finds stop strings in a text that arrives in pieces.

Each branch of a stream has one matcher and pushes its text through it, on the event loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress


class StopStringMatcher:
    """Cuts a text at the first stop string, which may extend over several pieces.

    Characters that may begin a stop string are withheld; all others are returned at once. Each character is
    tested once as the beginning of a stop string, and never again if it is none, so the total cost is linear
    in the text. In addition, each piece costs one search per stop string in the piece and in the withheld
    text before it.
    """

    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        """``include``: the text ends after the stop string, not before it."""
        self._stops = stops
        self._include = include
        self._longest = max(map(len, stops), default=0)
        self._withheld = ""
        self._visible = b""  # one byte per withheld character: whether it is part of the answer
        self.found: str | None = None
        """The stop string that ended the text."""

    def push(self, text: str, *, counts: bool = True, hidden: bool = False) -> str:
        """Returns the text that can be sent; sets ``found`` if a stop string is complete.

        ``counts``: whether a stop string may end in this piece; one that ends later may begin in it.
        ``hidden``: the piece (the text of a special token) may be part of a stop string, not of the answer.
        """
        before, text = len(self._withheld), self._withheld + text
        visible = self._visible + bytes([not hidden]) * (len(text) - before)
        if counts and (hit := self._first(text, before)) is not None:
            index, self.found = hit
            self._withheld, self._visible = "", b""
            return _select(text[:index], visible) + (self.found if self._include else "")
        safe = max(0, len(text) - self._longest + 1)
        while safe < len(text) and not self._may_begin(text[safe:]):
            safe += 1
        self._withheld, self._visible = text[safe:], visible[safe:]
        return _select(text[:safe], visible)

    def flush(self) -> str:
        """The withheld text, for when the text ends without a stop string."""
        rest = _select(self._withheld, self._visible)
        self._withheld, self._visible = "", b""
        return rest

    def _first(self, text: str, before: int) -> tuple[int, str] | None:
        """Index and text of the stop string that is the first to end after ``before`` characters.

        If several end there, the longest.
        """
        hits = [
            (index, stop)
            for stop in self._stops
            if (index := text.find(stop, max(0, before - len(stop) + 1))) >= 0
        ]
        return min(hits, key=lambda hit: (hit[0] + len(hit[1]), hit[0]), default=None)

    def _may_begin(self, text: str) -> bool:
        return any(len(text) < len(stop) and stop.startswith(text) for stop in self._stops)


def _select(text: str, visible: bytes) -> str:
    """The visible characters of ``text``; ``visible`` may be longer."""
    return "".join(compress(text, visible)) if 0 in visible else text
