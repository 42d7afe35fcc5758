"""Fitted tables predict what the known device does, from noisy steps of it."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.planning.calibration.fits import MEMORY_AND_CORES, START, START_SAMPLING, Fits
from albireo.planning.calibration.residuals import residuals
from tests.albireo.planning.calibration.measurements import CONFIG, DEVICE, measured, works
from worker_svc.cost.device import Device, Efficiency
from worker_svc.cost.physical import PhysicalCost
from worker_svc.cost.work import StepWork

SEEN, UNSEEN = works(), StepWork(decodes=24, context=24 * 350, prefill=120, prefill_pairs=9000, greedy=25)


def _fitted(tp: int, noise: float, outliers: float = 0.0, seed: int = 0, repeats: int = 5) -> Device:
    steps = measured(tp, noise=noise, outliers=outliers, seed=seed, repeats=repeats)
    fits = Fits(DEVICE, CONFIG, tp, steps)
    true = DEVICE.efficiency[tp - 1]
    collectives = {"tp": tp, "all_reduce_us": true.all_reduce_us, "link": true.link}
    efficiency = fits.forward(START.model_copy(update=collectives))
    sampling = fits.sampling(START_SAMPLING.model_copy(update={"tp": tp}))
    tables = {"efficiency": (efficiency,), "sampling": (sampling,), "host": (fits.host(),)}
    return DEVICE.model_copy(update=tables)


def _errors(device: Device, tp: int) -> list[float]:
    """Relative ones of T3 and T4, of each step."""
    found, true = PhysicalCost(device, CONFIG, tp), PhysicalCost(DEVICE, CONFIG, tp)
    errors = []
    for work in (*SEEN, UNSEEN):
        errors.append(found.forward_seconds(work) / true.forward_seconds(work) - 1)
        for parallel in (False, True):
            expected = true.sampling_seconds(work, parallel=parallel)
            errors.append(found.sampling_seconds(work, parallel=parallel) / expected - 1)
    return [abs(error) for error in errors]


@pytest.mark.parametrize("tp", [1, 2])
def test_steps_without_noise_are_predicted_within_two_percent(tp: int) -> None:
    assert max(_errors(_fitted(tp, noise=0.0), tp)) < 0.02


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_noise_of_the_steps_averages_out(seed: int) -> None:
    assert max(_errors(_fitted(1, noise=0.05, seed=seed), 1)) < 0.08


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_steps_that_were_held_up_move_a_prediction_little(seed: int) -> None:
    """One in 20 takes five times as long: by itself a fifth more in the mean."""
    assert max(_errors(_fitted(1, noise=0.05, outliers=0.05, seed=seed, repeats=20), 1)) < 0.25


def test_what_the_steps_show_by_themselves_is_found() -> None:
    found, true = _fitted(1, noise=0.0).efficiency[0], DEVICE.efficiency[0]
    assert found.step_us == pytest.approx(true.step_us, rel=0.01)
    for name in MEMORY_AND_CORES:
        assert getattr(found, name) == pytest.approx(getattr(true, name), rel=0.15), name


def test_the_hosts_times_are_found() -> None:
    found, true = _fitted(1, noise=0.02).host[0], DEVICE.host[0]
    work = UNSEEN
    predicted = PhysicalCost(DEVICE.model_copy(update={"host": (found,)}), CONFIG, 1).host(work)
    expected = PhysicalCost(DEVICE.model_copy(update={"host": (true,)}), CONFIG, 1).host(work)
    for name in ("t1", "t2", "t5"):
        assert getattr(predicted, name) == pytest.approx(getattr(expected, name), rel=0.05), name


def test_collectives_are_taken_as_measured() -> None:
    found, true = _fitted(2, noise=0.0).efficiency[0], DEVICE.efficiency[1]
    assert (found.all_reduce_us, found.link) == (true.all_reduce_us, true.link)


def test_residuals_are_of_the_noise_and_by_kind_of_step() -> None:
    steps = measured(2, noise=0.0)
    exact = residuals(PhysicalCost(DEVICE, CONFIG, 2), steps)
    assert {residual.what for residual in exact} == {
        f"{part}, tp 2" for part in ("T3 decode", "T3 prefill", "T3 mixed", "T4 rank 0", "T4 parallel")
    }
    assert max(residual.worst for residual in exact) < 1e-9
    assert all(residual.noise is not None and residual.noise < 1e-9 for residual in exact)
    noisy = residuals(PhysicalCost(DEVICE, CONFIG, 2), measured(2, noise=0.1, repeats=16))
    spreads = [residual.noise for residual in noisy if residual.noise is not None]
    assert len(spreads) == len(noisy)
    assert all(0.03 < spread < 0.12 for spread in spreads)  # the quartiles are at 0.67 deviations
    slow = DEVICE.model_copy(update={"efficiency": (_halved(DEVICE.efficiency[1]),)})
    wrong = {r.what: r.median for r in residuals(PhysicalCost(slow, CONFIG, 2), steps)}
    assert wrong["T3 prefill, tp 2"] > 0.3
    assert wrong["T4 parallel, tp 2"] < 1e-9
    assert np.isfinite(list(wrong.values())).all()


def _halved(efficiency: Efficiency) -> Efficiency:
    return efficiency.model_copy(update={name: getattr(efficiency, name) / 2 for name in MEMORY_AND_CORES})
