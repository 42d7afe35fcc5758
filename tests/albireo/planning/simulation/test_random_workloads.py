"""Random workloads keep every invariant; ``make check-simulation`` runs many more."""

from __future__ import annotations

import pytest

from tests.albireo.planning.simulation.random_case import check


@pytest.mark.parametrize("seed", range(1000, 1012))
def test_a_random_workload_keeps_every_invariant(seed: int) -> None:
    check(seed)
