"""The optimal TP degree t_e of a model, by the paper's two readings of it.

*By groups*, the definition: the largest t up to which T(t) >= 2 T(t / 2), where each group has 256 requests
in flight. *By devices*, what the definition is for: of all splits of so many devices into groups of t, the t
whose groups have the highest throughput together, with 256 requests in flight in all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.paper import data
from bench.paper.case import Case
from bench.paper.data import Mode

DEGREES = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Claim:
    """The paper's t_e of a model, on ``devices`` devices."""

    model: str
    devices: int
    t_e: dict[Mode, int]
    stated: bool  # in its text; otherwise its figures give it, by the definition


CLAIMS = (
    Claim("Llama2-13B", 4, {"synchronous": 1, "full": 2}, stated=False),
    Claim("Qwen2.5-32B", 4, {"synchronous": 2, "full": 4}, stated=True),
    Claim("Llama3.1-70B", 8, {"synchronous": 4, "full": 8}, stated=True),
)


@dataclass(frozen=True, slots=True)
class Found:
    """Ours, next to the paper's."""

    claim: Claim
    mode: Mode
    by_groups: int
    by_devices: int
    ratio: float  # T(t) / T(t / 2), where t is the full system's t_e by the paper

    @property
    def paper(self) -> int:
        return self.claim.t_e[self.mode]


def cases() -> list[Case]:
    found = [
        Case(claim.model, tp, mode, in_flight)
        for claim in CLAIMS
        for mode in data.BOTH
        for tp in DEGREES
        for in_flight in (data.IN_FLIGHT, _shared(claim, tp))
        if in_flight
    ]
    return list(dict.fromkeys(found))


def degrees(found: Mapping[Case, float]) -> list[Found]:
    """``found``: throughput of ``cases``."""
    return [_found(claim, mode, found) for claim in CLAIMS for mode in data.BOTH]


def over_degrees(model: str, mode: Mode, found: Mapping[Case, float]) -> dict[int, float]:
    """T(t), where the model fits."""
    every = {tp: found[Case(model, tp, mode, data.IN_FLIGHT)] for tp in DEGREES}
    return {tp: value for tp, value in every.items() if value}


def _found(claim: Claim, mode: Mode, found: Mapping[Case, float]) -> Found:
    scaling = over_degrees(claim.model, mode, found)
    tp = claim.t_e["full"]
    ratio = scaling[tp] / scaling[tp // 2]
    return Found(claim, mode, _by_groups(scaling), _by_devices(claim, mode, found), ratio)


def _by_groups(scaling: Mapping[int, float]) -> int:
    best = min(scaling)
    for tp in DEGREES:
        if tp // 2 == best and scaling[tp] >= 2 * scaling[best]:
            best = tp
    return best


def _by_devices(claim: Claim, mode: Mode, found: Mapping[Case, float]) -> int:
    def total(tp: int) -> float:
        return claim.devices // tp * found[Case(claim.model, tp, mode, _shared(claim, tp))]

    return max((tp for tp in DEGREES if tp <= claim.devices), key=total)


def _shared(claim: Claim, tp: int) -> int:
    """Requests in flight in one of the groups; 0 for a degree above the number of devices."""
    return data.IN_FLIGHT * tp // claim.devices if tp <= claim.devices else 0
