"""Calibrates a device: measures groups of a model at several TP degrees, and fits a device file to them.

``albireo calibrate`` calls it.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from albireo.planning.calibration.all_reduce import measure_all_reduce
from albireo.planning.calibration.description import describe, reserved_gib
from albireo.planning.calibration.fits import MEMORY_AND_CORES, Fits
from albireo.planning.calibration.loads import full_loads, quick_loads, sampling_loads
from albireo.planning.calibration.measure import Setting, measure
from albireo.planning.calibration.residuals import residuals
from albireo.planning.calibration.steps import MeasuredStep
from albireo.planning.calibration.variation import measure_variation
from albireo.planning.workload import Workload
from worker_svc.cost.device import (
    Calibration,
    Device,
    Efficiency,
    HostTimes,
    Link,
    Residual,
    SamplingCost,
    Tier,
    Variation,
)
from worker_svc.cost.physical import PhysicalCost
from worker_svc.main import rank_threads
from worker_svc.model.config import ModelConfig


class Calibrator:
    """Measures one degree after the other; ``device`` is what is known so far."""

    def __init__(
        self, setting: Setting, degrees: Sequence[int], *, quick: bool, report: Callable[[str], None]
    ) -> None:
        """``setting``: of the groups, measured at ``degrees``, ascending from 1. ``report`` gets a line for
        each thing that is measured.

        Raises CheckpointError for a degree that the model cannot be divided by.
        """
        self._config = ModelConfig.from_dir(setting.model)
        for tp in degrees:
            self._config.check_tp(tp)
        self._setting = setting
        self._loads = (quick_loads if quick else full_loads)(setting.max_seqs)
        self._report = report
        self._efficiency: list[Efficiency] = []
        self._sampling: list[SamplingCost] = []
        self._host: list[HostTimes] = []
        self._variation: list[Variation] = []
        self.residuals: list[Residual] = []
        self._begin("memory bandwidth and matrix products")
        self.device = describe(setting, degrees[-1])

    def _begin(self, what: str) -> None:
        """Raises RuntimeError once the calibration is to stop."""
        if self._setting.stop.is_set():
            raise RuntimeError("stopped")
        self._report(what)

    def measure(self, tp: int) -> None:
        """Adds the tables of one degree, above those before. Raises what ``measure`` and
        ``measure_all_reduce`` raise."""
        setting = replace(self._setting, tp=tp)
        start = self._with_collectives(tp) if tp > 1 else self.device.efficiency[0]
        measured = measure(setting, self._loads, lambda load: self._begin(f"tp {tp}: {load.name}"))
        steps = measured.steps + (self._sampled_by_rank_0(setting) if tp > 1 else [])
        fits = Fits(self.device, self._config, tp, steps)
        self._efficiency.append(fits.forward(start))
        self._sampling.append(fits.sampling(self.device.sampling[-1].model_copy(update={"tp": tp})))
        self._host.append(fits.host())
        self.device = self.device.model_copy(
            update={
                "efficiency": tuple(self._efficiency),
                "sampling": tuple(self._sampling),
                "host": tuple(self._host),
                "reserved_gib": reserved_gib(self.device, self._config, setting, measured.num_blocks),
            }
        )
        cost = PhysicalCost(self.device, self._config, tp)
        self._variation.append(measure_variation(cost, steps))
        self.device = self.device.model_copy(update={"variation": tuple(self._variation)})
        self.residuals += residuals(cost, steps)

    def _sampled_by_rank_0(self, setting: Setting) -> list[MeasuredStep]:
        """By itself rank 0 samples few rows only, and of few rows all costs look fixed."""

        def on_load(load: Workload) -> None:
            self._begin(f"tp {setting.tp}, rank 0 samples: {load.name}")

        return measure(replace(setting, sampling="driver"), sampling_loads(self._loads), on_load).steps

    def _with_collectives(self, tp: int) -> Efficiency:
        """What the fit starts from: the degree before, with the collectives of ``tp`` ranks.

        Ranks on CPUs share what the device has. The link has the bandwidth of the first degree above 1.
        """
        self._begin(f"tp {tp}: all-reduces")
        latency, bandwidth = measure_all_reduce(self._setting.device, tp, self._config.hidden_size)
        if self.device.link is None:
            link = Link(name="measured all-reduces", gb_per_second=bandwidth / 1e9)
            self.device = self.device.model_copy(update={"link": link})
        else:
            link = self.device.link
        before = self._efficiency[-1]
        share = before.tp / tp if self._setting.device == "cpu" else 1.0
        return before.model_copy(
            update={
                **{name: getattr(before, name) * share for name in MEMORY_AND_CORES},
                "tp": tp,
                "all_reduce_us": latency * 1e6,
                "link": bandwidth / 1e9 / link.gb_per_second,
            }
        )


def calibrate(
    setting: Setting,
    degrees: Sequence[int],
    *,
    quick: bool,
    machine: str,
    report: Callable[[str], None],
    tiers: tuple[Tier, ...] = (),
) -> Device:
    """Measures at ``degrees`` and at 1; ``machine`` and ``tiers`` are for the record. Raises what
    ``Calibrator`` raises."""
    degrees = sorted({1, *degrees})
    calibrator = Calibrator(setting, degrees, quick=quick, report=report)
    for tp in degrees:
        calibrator.measure(tp)
    record = Calibration(
        machine=machine,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        model=setting.model.resolve().name,
        setup=_setup(setting, degrees),
        residuals=tuple(calibrator.residuals),
    )
    return calibrator.device.model_copy(update={"tier": tiers, "calibration": record})


def _setup(setting: Setting, degrees: Sequence[int]) -> str:
    setup = f"torch {torch.__version__}, {setting.dtype}, {setting.max_seqs} slots"
    if setting.device == "cuda":
        return setup
    threads = ", ".join(f"{rank_threads(setting.model, tp, tp)} at tp {tp}" for tp in degrees)
    return f"{setup}, threads of a rank: {threads}"
