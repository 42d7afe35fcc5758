"""Fits of positive parameters, robust to outliers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from albireo.planning.calibration.least_squares import Vector, fit

SIZES = np.array([1.0, 2, 4, 8, 16, 32, 64, 128, 256])


def _line(values: Vector) -> Vector:
    line: Vector = values[0] + values[1] * SIZES
    return line


def _fit(measured: Vector, start: tuple[float, float] = (1.0, 1.0), lowest: float = 1e-6) -> Vector:
    ones = np.ones(len(SIZES))
    bounds = {"lowest": np.full(2, lowest), "highest": np.full(2, 1e6)}
    return fit(_line, measured, ones, np.array(start), **bounds)


@settings(max_examples=50)
@given(fixed=st.floats(0.1, 1e3), each=st.floats(0.1, 1e3))
def test_exact_measurements_give_the_parameters_that_made_them(fixed: float, each: float) -> None:
    measured = _line(np.array([fixed, each]))
    found = _line(_fit(measured))
    assert found == pytest.approx(measured, rel=0.02)


def test_a_few_outliers_move_the_parameters_little() -> None:
    measured = _line(np.array([50.0, 3.0]))
    measured[[2, 5]] *= 10
    assert _fit(measured) == pytest.approx([50.0, 3.0], rel=0.15)


def test_a_parameter_that_no_measurement_shows_stays_where_it_started() -> None:
    found = fit(
        lambda values: values[0] * SIZES,
        3 * SIZES,
        np.ones(len(SIZES)),
        np.array([1.0, 7.0]),
        lowest=np.full(2, 0.1),
        highest=np.full(2, 100.0),
    )
    assert found == pytest.approx([3.0, 7.0], rel=0.01)


def test_parameters_stay_within_their_bounds() -> None:
    assert _fit(np.array(3 * SIZES), lowest=0.5)[0] == pytest.approx(0.5)


def test_a_measurement_with_more_weight_is_met_more_closely() -> None:
    contradicting = np.array([1.0, 1.2])

    def first(weights: tuple[float, float]) -> float:
        bounds = {"lowest": np.array([0.1]), "highest": np.array([10.0])}
        start = np.array([1.0])
        return float(fit(lambda v: np.repeat(v, 2), contradicting, np.array(weights), start, **bounds)[0])

    assert first((10, 1)) < first((1, 1)) < first((1, 10))
