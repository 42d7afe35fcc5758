"""Which numbers a rank keeps in 8 bits. All ranks of a group keep the same."""

from __future__ import annotations

from typing import NamedTuple


class Int8(NamedTuple):
    """The rest is in the model's type."""

    weights: bool = False  # of the layers
    kv: bool = False


NO_INT8 = Int8()
