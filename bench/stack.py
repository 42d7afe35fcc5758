"""A stack of its own for one measurement; used by the benchmarks that measure a whole stack."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from albireo.local.settings import StackSettings
from albireo.local.stack import Stack


@contextmanager
def running_stack(
    options: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> Iterator[Stack]:
    """A stack that serves; it is stopped when the block is left.

    ``options``: fields of StackSettings; without ``data_dir`` a temporary directory. ``environment``:
    settings of the services, by their variables. Raises ValueError for invalid options; StackError, GaveUp
    and RedisServerError where the stack does not start.
    """
    with tempfile.TemporaryDirectory() as data:
        settings = StackSettings.model_validate({"port": 0, "data_dir": data, **options})
        with Stack(settings, environment) as stack:
            stack.wait_ready(threading.Event())
            yield stack
