"""Least squares of positive parameters, robust to outliers; the fits of a calibration call it.

The method of Levenberg and Marquardt (Marquardt 1963) in the logarithms of the parameters, with Huber's
weights (Huber 1964): a residual beyond ``OUTLIER`` pulls no harder than one of that size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]

OUTLIER = 0.3
"""Of logarithms of predicted over measured: about 30 %."""
PRIOR = 0.007
"""Weight of a parameter's distance from its start: enough where the measurements do not show it."""
STEPS = 100
DIFFERENCE = 1e-4
CONVERGED = 1e-7
STUCK = 1e8
"""Damping at which no step is an improvement."""


def fit(
    predict: Callable[[Vector], Vector],
    measured: Vector,
    weights: Vector,
    start: Vector,
    *,
    lowest: Vector,
    highest: Vector,
) -> Vector:
    """Parameters whose predictions come near to what was measured; errors are relative.

    ``predict`` and ``measured`` give ``[n]`` positive numbers, ``weights`` ``[n]`` counts in the sum of
    squares. ``start``, ``lowest``, ``highest``: ``[p]`` positive. Directions that no measurement shows stay
    at ``start``.
    """
    low, high, origin = np.log(lowest), np.log(highest), np.log(start)
    root, target = np.sqrt(weights), np.log(measured)

    def residuals(x: Vector) -> Vector:
        return np.concatenate([root * (np.log(predict(np.exp(x))) - target), PRIOR * (x - origin)])

    scale = np.concatenate([root, np.ones(len(start))])
    x, damping = np.clip(origin, low, high), 1e-2
    found = residuals(x)
    for _ in range(STEPS):
        jacobian = _jacobian(residuals, x, found)
        huber = OUTLIER / np.maximum(OUTLIER, np.abs(found) / scale)
        normal, slope = jacobian.T @ (huber[:, None] * jacobian), jacobian.T @ (huber * found)
        while damping < STUCK:
            move = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -slope)
            candidate = np.clip(x + np.clip(move, -1, 1), low, high)
            tried = residuals(candidate)
            if _loss(tried, scale) < _loss(found, scale):
                break
            damping *= 4
        else:
            break
        moved = float(np.abs(candidate - x).max())
        x, found, damping = candidate, tried, max(damping / 4, 1e-9)
        if moved < CONVERGED:
            break
    result: Vector = np.exp(x)
    return result


def _jacobian(residuals: Callable[[Vector], Vector], x: Vector, at: Vector) -> Vector:
    columns = [(residuals(x + DIFFERENCE * axis) - at) / DIFFERENCE for axis in np.eye(len(x))]
    return np.stack(columns, axis=1)


def _loss(found: Vector, scale: Vector) -> float:
    """Huber's, of residuals that ``scale`` has been multiplied with."""
    size = np.abs(found) / scale
    each = np.where(size <= OUTLIER, size**2, OUTLIER * (2 * size - OUTLIER))
    return float((scale**2 * each).sum())
