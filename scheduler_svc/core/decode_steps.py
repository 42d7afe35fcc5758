"""The steps of one group, as its decoding rows need them: which of the rows are due.

The ledger changes it.
"""

from __future__ import annotations

from collections.abc import Mapping

from scheduler_svc.core.request import Occupancy


class DecodeSteps:
    """Counts the steps that all decoding rows run, and knows in which of them each row needs a decision: its
    block table is full, or it comes to its end by length. So a step costs what is due in it, whatever runs.

    The slots of the rows are in lists by step, as in a timing wheel (Varghese and Lauck, SOSP 1987). A row
    that stops decoding stays in its list, and does not count when its step comes.
    """

    def __init__(self) -> None:
        self.published = 0  # the last step
        self._due: dict[int, dict[int, None]] = {}  # slots by step; no rows, which refer to this

    def begin(self, occupancy: Occupancy) -> None:
        """A row decodes from the next step on."""
        occupancy.decoding, occupancy.decodes_after = self, self.published
        self.expect(occupancy)

    def end(self, occupancy: Occupancy) -> None:
        """It does not any more; nothing happens if it did not."""
        occupancy.scheduled_before, occupancy.last_step_before = occupancy.scheduled, occupancy.last_step
        occupancy.decoding = None

    def expect(self, occupancy: Occupancy) -> None:
        """The row limit of a row has changed; nothing happens if it does not decode."""
        left = occupancy.row_limit - occupancy.scheduled
        if left > 0 and occupancy.decoding is not None:
            self._due.setdefault(self.published + left, {})[occupancy.slot] = None

    def publish(self, step: int, rows: Mapping[int, Occupancy]) -> list[Occupancy]:
        """The next step is published, which all decoding rows run, given by slot. Returns those that need a
        decision before another step, in the order in which they were expected."""
        self.published = step
        found = [row for slot in self._due.pop(step, ()) if (row := rows.get(slot)) is not None]
        return [row for row in found if row.scheduled >= row.row_limit]
