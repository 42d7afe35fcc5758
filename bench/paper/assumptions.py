"""What other choices would have changed: each is made alone, the device fitted again, and everything
estimated from the mean step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.paper import comparison, degrees
from bench.paper.calibration import calibrated
from bench.paper.case import LENGTHS, Lengths, throughputs
from bench.paper.estimate import estimated
from worker_svc.cost.device import Device, Efficiency


@dataclass(frozen=True, slots=True)
class Choice:
    """``change`` makes another device of the preset."""

    what: str
    lengths: Lengths = LENGTHS
    change: Callable[[Device], Device] = lambda device: device


@dataclass(frozen=True, slots=True)
class Effect:
    """Errors of all predicted figures under one choice."""

    what: str
    median: float
    worst: float
    worst_at: str
    by_groups: int  # how often t_e is the paper's, of all claims in both modes
    by_devices: int  # and of those in its text


def effects(base: Device) -> Iterator[Effect]:
    for choice in _choices():
        device = calibrated(choice.change(base), choice.lengths)
        cases = [*comparison.cases(), *degrees.cases()]
        found = throughputs(estimated, cases, device, choice.lengths)
        summary = comparison.summary(comparison.figures(found))
        worst, degrees_found = summary.worst, degrees.degrees(found)
        yield Effect(
            choice.what,
            summary.median,
            abs(worst.error),
            f"{worst.what}, {worst.mode}",
            sum(d.by_groups == d.paper for d in degrees_found),
            sum(d.by_devices == d.paper for d in degrees_found if d.claim.stated),
        )


def _choices() -> list[Choice]:
    others = [(100, 300), (100, 500), (100, 700), (100, 1000), (100, 2000), (200, 400), (400, 600)]
    return [
        Choice("as above"),
        *(Choice(f"prompts of {p}, outputs of {o} tokens", Lengths(p, o)) for p, o in others),
        Choice("overlap of reading and multiplying: power 2", change=_with(overlap=lambda e: 2.0)),
        Choice("no such overlap: power 1", change=_with(overlap=lambda e: 1.0)),
        Choice("KV read as efficiently as weights", change=_with(kv=lambda e: e.weights)),
        Choice(
            "half the latency of an all-reduce", change=_with(all_reduce_us=lambda e: e.all_reduce_us / 2)
        ),
        Choice(
            "twice the latency of an all-reduce", change=_with(all_reduce_us=lambda e: e.all_reduce_us * 2)
        ),
        Choice("all-reduces at 0.9 of the link", change=_with(link=lambda e: 0.9)),
        Choice("4 GiB reserved on each device", change=lambda d: d.model_copy(update={"reserved_gib": 4.0})),
    ]


def _with(**fields: Callable[[Efficiency], float]) -> Callable[[Device], Device]:
    """The device with other efficiencies, each computed from the preset's."""

    def change(device: Device) -> Device:
        tables = [e.model_copy(update={n: f(e) for n, f in fields.items()}) for e in device.efficiency]
        return device.model_copy(update={"efficiency": tuple(tables)})

    return change
