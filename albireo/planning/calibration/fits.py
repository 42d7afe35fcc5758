"""Fits the tables of a device to measured steps: efficiencies of the forward, T4, and the host's T1, T2, T5.

The cost model itself predicts, so the fits follow whatever terms it has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from albireo.planning.calibration.groups import Group, grouped
from albireo.planning.calibration.least_squares import Vector, fit
from albireo.planning.calibration.steps import MeasuredStep
from worker_svc.cost.device import Device, Efficiency, HostPart, HostTimes, RowCost, SamplingCost
from worker_svc.cost.physical import PhysicalCost
from worker_svc.cost.work import StepWork
from worker_svc.model.config import ModelConfig

SHARE = (1e-4, 10.0)
MICROSECONDS = (1e-3, 1e6)
FORWARD: dict[str, tuple[float, float]] = {
    "weights": SHARE,
    "kv": SHARE,
    "compute": SHARE,
    "attention": SHARE,
    "overlap": (1.0, 16.0),
    "layer_us": MICROSECONDS,
}
"""Fields of Efficiency that are fitted, and their bounds. The collectives are measured by themselves, and one
model cannot tell the launch of a step from the launches of its layers."""
NANOSECONDS = (1e-6, 1e4)
RELATIVE = (1e-3, 1e3)
HOST = ("fixed_us", "row_us", "prefill_token_us")

MEMORY_AND_CORES = ("weights", "kv", "compute", "attention")
"""Shares that ranks on CPUs divide among themselves."""
START = Efficiency(weights=0.8, kv=0.5, compute=0.5, attention=0.3, overlap=2.0, layer_us=20.0)
START_SAMPLING = SamplingCost(
    fixed_us=100,
    driver_us=100,
    parallel_us=100,
    greedy=RowCost(logit_ns=0.1),
    drawn=RowCost(fixed_us=100, logit_ns=0.5),
    penalized=RowCost(fixed_us=100, logit_ns=1.0),
)


class Fits:
    """The tables of one TP degree. ``device``: its limits and link are what the tables are relative to."""

    def __init__(self, device: Device, config: ModelConfig, tp: int, steps: Sequence[MeasuredStep]) -> None:
        self._device = device
        self._config = config
        self._tp = tp
        self._steps = steps

    def forward(self, start: Efficiency) -> Efficiency:
        """T3. Fields of ``start`` that are not in FORWARD are taken as given."""
        start = start.model_copy(update={"step_us": 0.0})  # the launch that T3 does not contain, see below
        names = list(FORWARD)

        def table(values: Vector) -> Efficiency:
            return start.model_copy(update=dict(zip(names, values.tolist(), strict=True)))

        def seconds(values: Vector, group: Group, cost: PhysicalCost) -> float:
            return group.mean(cost.forward_seconds)

        found = self._fit(
            grouped((step for step in self._steps if step.work.rows), lambda step: step.t3),
            lambda values: {"efficiency": (table(values),)},
            seconds,
            [getattr(start, name) for name in names],
            [FORWARD[name] for name in names],
        )
        gaps = [step.gap for step in self._steps if step.gap is not None and step.work.decodes]
        return table(found).model_copy(update={"step_us": 1e6 * float(np.mean(gaps)) if gaps else 0.0})

    def sampling(self, start: SamplingCost) -> SamplingCost:
        """T4."""
        bounds = {"fixed_us": MICROSECONDS}
        if self._tp > 1:
            bounds.update({"driver_us": MICROSECONDS, "parallel_us": MICROSECONDS, "link": RELATIVE})

        def table(values: Vector) -> SamplingCost:
            greedy, drawn, penalized, drawn_us, penalized_us, *others = values.tolist()
            return start.model_copy(
                update={
                    "greedy": RowCost(logit_ns=greedy),
                    "drawn": RowCost(logit_ns=drawn, fixed_us=drawn_us),
                    "penalized": RowCost(logit_ns=penalized, fixed_us=penalized_us),
                    **dict(zip(bounds, others, strict=True)),
                }
            )

        def seconds(values: Vector, group: Group, cost: PhysicalCost) -> float:
            return group.mean(partial(cost.sampling_seconds, parallel=group.parallel))

        found = self._fit(
            grouped((step for step in self._steps if step.work.samples), lambda step: step.t4),
            lambda values: {"sampling": (table(values),)},
            seconds,
            [
                *(kind.logit_ns for kind in (start.greedy, start.drawn, start.penalized)),
                *(kind.fixed_us for kind in (start.drawn, start.penalized)),
                *(getattr(start, name) for name in bounds),
            ],
            [NANOSECONDS] * 3 + [MICROSECONDS] * 2 + list(bounds.values()),
        )
        return table(found)

    def host(self) -> HostTimes:
        """T1, T2 and T5, as they are while a step runs."""
        return HostTimes(
            tp=self._tp,
            t1=self._host(lambda step: step.t1, lambda work: work.decodes),
            t2=self._host(lambda step: step.t2, lambda work: work.decodes),
            t5=self._host(lambda step: step.t5, lambda work: work.samples),
        )

    def _host(self, duration: Callable[[MeasuredStep], float], rows: Callable[[StepWork], int]) -> HostPart:
        groups = grouped((step for step in self._steps if step.work.rows), duration)
        counts = np.array([(1, group.mean(rows), group.mean(lambda work: work.prefill)) for group in groups])
        found = fit(
            lambda values: counts @ values,
            np.array([group.seconds for group in groups]) * 1e6,
            np.array([group.weight for group in groups]),
            np.array([500.0, 2.0, 0.5]),
            lowest=np.full(3, 1e-3),
            highest=np.full(3, 1e5),
        )
        return HostPart(**dict(zip(HOST, found.tolist(), strict=True)))

    def _fit(
        self,
        groups: Sequence[Group],
        update: Callable[[Vector], dict[str, Any]],
        seconds: Callable[[Vector, Group, PhysicalCost], float],
        start: Sequence[float],
        bounds: Sequence[tuple[float, float]],
    ) -> Vector:
        """Parameters of the tables that ``update`` makes of them."""

        def predict(values: Vector) -> Vector:
            cost = self._cost(**update(values))
            return np.array([seconds(values, group, cost) for group in groups])

        low, high = np.array(bounds).T
        return fit(
            predict,
            np.array([group.seconds for group in groups]),
            np.array([group.weight for group in groups]),
            np.clip(np.array(start), low, high),
            lowest=low,
            highest=high,
        )

    def _cost(self, **tables: Any) -> PhysicalCost:
        device = self._device.model_copy(update=tables)
        return PhysicalCost(device, self._config, self._tp)
