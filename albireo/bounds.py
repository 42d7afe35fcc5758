"""What a request may ask for: the ranges that the public API promises, for all who check them.

Gateways check what clients send and name the field; the scheduler checks what it finds in the inbox.
"""

from __future__ import annotations

import re
from typing import Final

IDENTIFIER: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""Request ids, tenants."""
MAX_PRIORITY: Final = 100
MAX_DEADLINE_SECONDS: Final = 86_400
MAX_LOGPROBS: Final = 20
MAX_STOP_IDS: Final = 64
MAX_TOKEN_IDS: Final = 1024
"""Most entries of logit_bias, allowed_token_ids and bad_token_ids each."""
RANGES: Final[dict[str, tuple[float, float]]] = {
    "temperature": (0, 100),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "typical_p": (0, 1),
    "repetition_penalty": (0.009999999776482582, 100),  # 0.01 as a float
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
NOT_ZERO: Final = ("top_p", "typical_p")
BIAS_RANGE: Final = (-100, 100)
MAX_TOP_K: Final = 2**31 - 1
