"""Types of the host's arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
HostArray = npt.NDArray[Any]

NO_IDS: Ints = np.zeros(0, dtype=np.int64)
