"""The command that starts the ranks of a machine, in compose and on Kubernetes."""

from __future__ import annotations

from collections.abc import Sequence

RANK = ["albireo", "worker"]
"""What it starts as each rank."""
_OPTION = "--kill-after="


def kill_after(command: Sequence[str]) -> float:
    """Seconds that a rank has to end after a signal."""
    [seconds] = [float(part.removeprefix(_OPTION)) for part in command if part.startswith(_OPTION)]
    return seconds
