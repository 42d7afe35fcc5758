"""The directory of checkpoints in which a gateway finds models: ``<directory>/<name>``.

The models look into it in a thread, since it may be on a network.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable
from pathlib import Path

from albireo.checkpoint.files import CONFIG
from albireo.checkpoint.fingerprint import FILES

logger = logging.getLogger(__name__)

ABSENT = ""
"""The state of a checkpoint that is not there."""


class CheckpointDirectory:
    """Which checkpoints it has, and whether they have changed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._unreadable: set[str] = set()  # names

    def path_of(self, name: str) -> Path:
        return self._directory / name

    def look(self, names: Iterable[str]) -> dict[str, str]:
        """The state of each of these checkpoints: another one when its files have changed, or ``ABSENT``.

        One that cannot be looked at is logged and left out.
        """
        states = {}
        for name in sorted(names):
            try:
                states[name] = self._state(name)
                self._unreadable.discard(name)
            except OSError as error:
                if name not in self._unreadable:
                    logger.warning("checkpoint of model %s: %s", name, error)
                self._unreadable.add(name)
        return states

    def _state(self, name: str) -> str:
        """Raises OSError."""
        if any(part in ("", ".", "..") for part in name.split("/")):  # not below the directory
            return ABSENT
        path = self.path_of(name)
        times = {file: changed for file in FILES if (changed := _changed(path / file))}
        return repr(times) if CONFIG in times else ABSENT


def _changed(file: Path) -> int:
    """When, in nanoseconds since the Unix epoch; 0 where there is no such file. Raises OSError."""
    try:
        return file.stat().st_mtime_ns
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return 0
        raise
