"""The paper's figures, with which the comparison is made.

Source: *Scaling LLM Inference Beyond Amdahl's Limits via Eliminating Non-Scalable Overheads*, arXiv
2606.01927v1, 1 June 2026; 8 x H100 with NVLink, all sampling features on. Throughput is in thousands of
output tokens per second and mostly read off plots, which is good to about 3 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["synchronous", "async only", "full"]
"""vLLM 0.11.2; the paper's system without its sampling; the paper's system."""

MODES: tuple[Mode, ...] = ("synchronous", "async only", "full")
BOTH: tuple[Mode, ...] = ("synchronous", "full")
"""Those that the paper has for everything."""

SOURCE = "arXiv 2606.01927v1"
IN_FLIGHT = 256
"""Requests in flight in every row: throughput times TPOT says so."""


@dataclass(frozen=True, slots=True)
class Row:
    """One model on one group."""

    model: str
    tp: int
    throughput: dict[Mode, float]  # thousands of tokens per second
    tpot_ms: tuple[float, float] | None = None  # synchronous, full


def _row(
    model: str, tp: int, synchronous: float, async_only: float, full: float, tpot: tuple[float, float]
) -> Row:
    return Row(model, tp, {"synchronous": synchronous, "async only": async_only, "full": full}, tpot)


ROWS = (
    _row("Llama2-7B", 1, 4.5, 5.9, 5.9, (56, 43)),
    _row("Qwen2.5-7B", 1, 8.25, 10.6, 10.6, (30.5, 24)),
    _row("Llama2-13B", 2, 4.7, 6.0, 6.4, (54, 39.5)),
    _row("Qwen2.5-14B", 2, 7.1, 9.25, 10.4, (36, 24.5)),
    _row("Qwen2.5-32B", 4, 6.65, 9.1, 11.25, (38, 22.3)),
    _row("Llama3.1-70B", 8, 6.05, 8.55, 10.65, (41.7, 23.6)),
    _row("Qwen2.5-72B", 8, 6.05, 9.15, 11.7, (41.7, 21.6)),
)

SCALING = (
    Row("Llama2-13B", 1, {"synchronous": 2.6, "full": 2.9}),
    Row("Llama2-13B", 4, {"synchronous": 7.8, "full": 12.4}),
    Row("Qwen2.5-32B", 2, {"synchronous": 4.1, "full": 5.1}),
    Row("Qwen2.5-32B", 8, {"synchronous": 8.3, "full": 18.0}),  # the plot's axis ends at 18
    Row("Llama3.1-70B", 4, {"synchronous": 3.9, "full": 5.0}),
)
"""Further TP degrees of three models of ROWS."""


@dataclass(frozen=True, slots=True)
class Split:
    """Qwen2.5-32B on four devices, as ``groups`` groups of TP degree ``tp``."""

    groups: int
    tp: int
    throughput: dict[Mode, float]  # of all groups together

    @property
    def name(self) -> str:
        return f"{self.groups}x{self.tp}"


SPLITS = (
    Split(4, 1, {"synchronous": 4.7, "full": 5.2}),
    Split(2, 2, {"synchronous": 7.95, "full": 10.1}),
    Split(1, 4, {"synchronous": 6.9, "full": 10.6}),
)

GAINS = {32: 1.15, 64: 1.26, 128: 1.43, 256: 1.69}
"""QwQ-32B, which has the shape of Qwen2.5-32B, at t = 4: full / synchronous by requests in flight."""

T3_MS, T4_MS, T4_PARALLEL_MS = 21.0, 6.0, 1.5
T1_MS, T2_MS = 4.0, 4.0
"""Of the row that is calibrated with, at 256 rows; T1 and T2 of vLLM, T4 on one rank and on four."""

CALIBRATED = ROWS[4]
"""The one row that is fitted."""
