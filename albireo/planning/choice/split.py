"""How devices are split into groups of one TP degree, and which splits a model allows.

``albireo plan`` simulates each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker_svc.model.config import ModelConfig


@dataclass(frozen=True, slots=True, order=True)
class Split:
    """``groups`` groups of ``tp`` devices each. All groups are alike."""

    tp: int
    groups: int

    def __str__(self) -> str:
        """As the paper writes it: groups x TP degree."""
        return f"{self.groups}x{self.tp}"

    @property
    def devices(self) -> int:
        """Devices that compute."""
        return self.tp * self.groups


@dataclass(frozen=True, slots=True)
class FittingSplit:
    split: Split
    num_blocks: int  # KV blocks of each group


@dataclass(frozen=True, slots=True)
class UnfitSplit:
    split: Split
    reason: str  # in one line


def legal_splits(config: ModelConfig, devices: int) -> list[Split]:
    """Splits by rising TP degree: each degree that divides the model, with as many groups as ``devices``
    allow. Where the degree does not divide ``devices``, the rest is unused. Raises ValueError."""
    if devices < 1:
        raise ValueError(f"{devices} devices: it takes at least one")
    return [Split(tp, devices // tp) for tp in range(1, devices + 1) if config.divides_by(tp)]


def fitting(
    splits: Sequence[Split],
    kv_blocks: Callable[[int], int],
    most_tokens: Callable[[int, int], int],
    max_model_len: int,
) -> tuple[list[FittingSplit], list[UnfitSplit]]:
    """Those whose ranks hold the weights and the KV of the longest request, and the others.

    ``kv_blocks``: KV blocks of a group by TP degree; raises ValueError where the weights do not fit.
    ``most_tokens``: of a request, by TP degree and blocks. Raises ValueError where no split fits.
    """
    good, bad = [], []
    for split in splits:
        try:
            blocks = kv_blocks(split.tp)
        except ValueError as error:
            bad.append(UnfitSplit(split, str(error)))
            continue
        if (most := most_tokens(split.tp, blocks)) < max_model_len:
            reason = f"KV memory for {most} tokens, and one request may have {max_model_len}"
            bad.append(UnfitSplit(split, reason))
        else:
            good.append(FittingSplit(split, blocks))
    if not good:
        last = bad[-1]
        raise ValueError(f"the model fits at no TP degree; at {last.split.tp}: {last.reason}")
    return good, bad
