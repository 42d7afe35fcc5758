"""Ends a process when the supervisor that started it ends. Called by every command as it starts."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PARENT_VARIABLE = "ALBIREO_PARENT_PID"
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Asks the kernel for SIGTERM at the end of the supervisor, if one started this process (Linux only)."""
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it ended before the kernel was asked
        sys.exit("the supervisor is gone")
