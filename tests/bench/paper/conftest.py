"""Outcomes that several tests look at."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from bench.paper import data
from bench.paper.case import Case
from bench.paper.estimate import estimated
from bench.paper.outcome import Outcome, predict_paper
from worker_svc.cost.device import Device


@pytest.fixture(scope="session")
def outcome() -> Outcome:
    """Estimated from the mean step: quick."""
    return predict_paper(Device.load("h100"), estimated)


@pytest.fixture
def paper_itself(outcome: Outcome) -> Mapping[Case, float]:
    """The paper's own throughput, where it has it; elsewhere what is estimated."""
    rows = {
        Case(row.model, row.tp, mode, data.IN_FLIGHT): throughput
        for row in (*data.ROWS, *data.SCALING)
        for mode, throughput in row.throughput.items()
    }
    splits = {
        Case("Qwen2.5-32B", split.tp, mode, data.IN_FLIGHT // split.groups): throughput / split.groups
        for split in data.SPLITS
        for mode, throughput in split.throughput.items()
    }
    return {**outcome.throughput, **splits, **rows}
