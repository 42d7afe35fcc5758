"""`albireo bench sampling`: every case is measured, and shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.sampling.measure import CONTROLS, Case, measure
from bench.sampling.report import chart, table


def test_every_case_is_measured_and_shown(tmp_path: Path) -> None:
    cases = [Case(controls, batch, 700, "bfloat16") for controls in CONTROLS for batch in (3, 8)]
    found = measure(cases, tp=2, threads=1, rounds=2)
    assert [Case(m.controls, m.batch, m.vocabulary, m.dtype) for m in found] == cases
    for measured in found:
        assert measured.parallel is not None
        assert min(measured.driver, measured.parallel, measured.read, measured.sort) > 0
    assert table(found, "title").row_count == len(cases)
    chart(found, "title", tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_several_ranks_on_a_gpu_are_refused() -> None:
    with pytest.raises(ValueError, match="one rank alone"):
        measure([Case("greedy", 3, 700, "bfloat16")], tp=2, threads=1, rounds=2, device="cuda")
