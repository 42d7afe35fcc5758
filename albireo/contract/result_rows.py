"""The rows of a step's result, as the columns that its entry in the log holds.

Workers write them, the scheduler and gateways read them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from albireo.contract.plan import Finish
from albireo.v1 import log_pb2 as log

GOES_ON = bytes([Finish.NONE])
UINT32, UINT64 = np.dtype("<u4"), np.dtype("<u8")


class Rows(NamedTuple):
    """The rows of a step's result: parallel tuples, as in :class:`albireo.contract.plan.StepResult`."""

    slots: tuple[int, ...]
    incarnations: tuple[int, ...]
    ids: tuple[int, ...]
    finishes: tuple[int, ...]


class Columns(TypedDict):
    """The fields of a ``log.StepResult`` that hold its rows."""

    slots: bytes
    incarnations: bytes
    ids: bytes
    finishes: bytes


def columns(
    slots: npt.ArrayLike, incarnations: npt.ArrayLike, ids: npt.ArrayLike, finishes: Iterable[int]
) -> Columns:
    """Rows as they are in a result; all of one length."""
    return Columns(
        slots=np.asarray(slots, UINT32).tobytes(),
        incarnations=np.asarray(incarnations, UINT64).tobytes(),
        ids=np.asarray(ids, UINT32).tobytes(),
        finishes=bytes(finishes),
    )


def rows_of(message: log.StepResult) -> Rows:
    """The rows of a result that ``result_from_bytes`` of the codec has checked."""
    rows = len(message.finishes)
    return Rows(
        slots=struct.unpack(f"<{rows}I", message.slots),
        incarnations=incarnations_of(message),
        ids=struct.unpack(f"<{rows}I", message.ids),
        finishes=tuple(message.finishes),
    )


def incarnations_of(message: log.StepResult) -> tuple[int, ...]:
    """Whose the rows of a result are."""
    return struct.unpack(f"<{len(message.finishes)}Q", message.incarnations)


def ends_of(message: log.StepResult) -> list[tuple[int, int]]:
    """Incarnation and finish of each row that ended its request; most rows go on, and cost nothing here."""
    finishes = message.finishes
    if not finishes.strip(GOES_ON):
        return []
    incarnations = incarnations_of(message)
    return [(incarnations[row], finish) for row, finish in enumerate(finishes) if finish]
