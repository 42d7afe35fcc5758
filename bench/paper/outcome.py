"""Everything that the comparison has found, as plain data: what the command shows, writes and draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bench.paper import comparison, data, degrees, missing
from bench.paper.assumptions import Effect, effects
from bench.paper.calibration import calibrated
from bench.paper.case import LENGTHS, Case, Lengths, Predict, throughputs
from bench.paper.comparison import Figure, Summary
from bench.paper.degrees import Found
from bench.paper.missing import Contention
from worker_svc.cost.device import Device


@dataclass(frozen=True, slots=True)
class Outcome:
    """``device`` is calibrated; throughput is in thousands of tokens per second."""

    device: Device
    lengths: Lengths
    throughput: Mapping[Case, float]
    figures: list[Figure]
    summary: Summary
    degrees: list[Found]
    effects: list[Effect]
    contention: list[Contention]
    most_tokens: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        return {
            "simulated": True,
            "source": data.SOURCE,
            "lengths": asdict(self.lengths),
            "efficiency": self.device.efficiency[0].model_dump(),
            "figures": [{**asdict(figure), "error": figure.error} for figure in self.figures],
            "median_error": self.summary.median,
            "worst_error": abs(self.summary.worst.error),
            "degrees": [asdict(found) for found in self.degrees],
            "effects": [asdict(effect) for effect in self.effects],
            "contention": [asdict(needed) for needed in self.contention],
            "most_tokens": self.most_tokens,
        }


def predict_paper(
    base: Device, predict: Predict, *, lengths: Lengths = LENGTHS, processes: int = 1
) -> Outcome:
    """``base``: the device before it is calibrated."""
    device = calibrated(base, lengths)
    cases = [*comparison.cases(), *degrees.cases()]
    found = throughputs(predict, cases, device, lengths, processes=processes)
    compared = comparison.figures(found)
    return Outcome(
        device=device,
        lengths=lengths,
        throughput=found,
        figures=compared,
        summary=comparison.summary(compared),
        degrees=degrees.degrees(found),
        effects=list(effects(base)),
        contention=missing.contention(base, lengths.prompt),
        most_tokens=missing.most_tokens(device, lengths),
    )
