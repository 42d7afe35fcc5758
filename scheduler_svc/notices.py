"""The notices: what the scheduler of one epoch reports to gateways apart from results.

The fleet numbers its openings and closings by it; the epoch appends ends of requests that waited.
"""

from __future__ import annotations

from collections.abc import Sequence

from albireo.contract.codec import finish_name
from albireo.contract.keys import Keys
from albireo.store.interface import EntryId, Store
from albireo.v1 import log_pb2 as log
from scheduler_svc.core import WaitingEnd

KEPT_NOTICES = 4096
"""About how many entries stay in the log."""


class Notices:
    """Entries ``<epoch>-<n>``; ``<epoch>-0`` is the opening, by ``Store.open_epoch``."""

    def __init__(self, epoch: int, store: Store, keys: Keys) -> None:
        self._epoch = epoch
        self._log = store.log(keys.notices, keep=KEPT_NOTICES)
        self._last = 0

    def next(self) -> int:
        """The number of the next notice, which the caller appends at once."""
        self._last += 1
        return self._last

    def ended(self, ends: Sequence[WaitingEnd]) -> None:
        """Requests that waited have ended, by the scheduler's decision. Raises Fenced."""
        found = [
            log.Ended(request_id=end.request_id, reason=finish_name(end.reason), num_outputs=end.num_outputs)
            for end in ends
        ]
        notice = log.Notice(ended=log.WaitingEnded(ended=found))
        self._log.append(EntryId(self._epoch, self.next()), notice.SerializeToString())
