"""What a cost model's file may say, and how long a step then takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker_svc.cost.fixed import PRESETS, Cost, FixedCost, StepTimes
from worker_svc.cost.work import SpanWork, StepWork

GOOD = 'name = "n"\nsource = "s"\n[t3]\nfixed_ms = 1.5\n[t4]\nrow_us = 20\n'


def t4(times: StepTimes, tp: int, rows: int, *, parallel: bool) -> float:
    return FixedCost(times, tp).sampling_seconds(StepWork(penalized=rows), parallel=parallel)


def test_the_parts_of_a_cost_add_up_and_some_shrink_with_the_tp_degree() -> None:
    cost = Cost(fixed_ms=1, fixed_ms_over_t=8, row_us=10, row_us_over_t=40, prefill_token_us_over_t=2)
    assert cost.seconds(rows=100, prefill_tokens=1000, tp=1) == pytest.approx(0.001 + 0.008 + 0.005 + 0.002)
    assert cost.seconds(rows=100, prefill_tokens=1000, tp=4) == pytest.approx(
        0.001 + 0.002 + 0.001 + 0.001 + 0.0005
    )


def test_a_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "cost.toml"
    path.write_text(GOOD)
    model = StepTimes.load(str(path))
    assert model.t3.seconds(rows=9, prefill_tokens=9, tp=1) == pytest.approx(0.0015)
    assert model.t4.seconds(rows=50, prefill_tokens=9, tp=1) == pytest.approx(0.001)


@pytest.mark.parametrize("preset", [path.stem for path in PRESETS.glob("*.toml")])
def test_every_preset_says_where_its_numbers_come_from(preset: str) -> None:
    model = StepTimes.load(preset)
    assert model.name == preset
    assert model.source.strip()


def test_sampling_in_parallel_has_a_cost_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "cost.toml"
    path.write_text(GOOD)
    alike = StepTimes.load(str(path))
    path.write_text(GOOD + "[t4_parallel]\nfixed_ms = 0.1\nrow_us_over_t = 20\n")
    model = StepTimes.load(str(path))
    for parallel in (False, True):
        assert t4(alike, 4, 50, parallel=parallel) == pytest.approx(0.001)
    assert t4(model, 4, 50, parallel=False) == pytest.approx(0.001)
    assert t4(model, 4, 50, parallel=True) == pytest.approx(0.00035)


def test_rows_of_spans_cost_in_their_layers_alone(tmp_path: Path) -> None:
    path = tmp_path / "cost.toml"
    path.write_text(GOOD.replace("[t4]", "prefill_token_us_over_t = 10\n[t4]"))
    cost = FixedCost(StepTimes.load(str(path)), 1)
    span = SpanWork.of(range(3), 100, 40)
    assert cost.forward_seconds(StepWork(decodes=1, spans=(span,), layers=4)) == pytest.approx(0.0018)
    assert cost.forward_seconds(StepWork(spans=(span,), layers=4)) == pytest.approx(0.75 * 0.0019)
    assert cost.forward_seconds(StepWork()) == 0


@pytest.mark.parametrize(("preset", "tp", "t3"), [("7b", 1, 37.3), ("13b", 2, 36.7), ("70b", 8, 23.0)])
def test_the_papers_other_models_at_their_degree(preset: str, tp: int, t3: float) -> None:
    model = StepTimes.load(f"paper-{preset}")
    assert model.t3.seconds(rows=256, prefill_tokens=0, tp=tp) == pytest.approx(t3 / 1e3)
    assert t4(model, tp, 256, parallel=True) == pytest.approx(0.0002 + 0.006 / tp)


def test_the_paper_preset_is_the_papers_step() -> None:
    model = StepTimes.load("paper-32b")
    assert t4(model, 4, 256, parallel=True) == pytest.approx(0.0017)
    assert model.t3.seconds(rows=256, prefill_tokens=0, tp=4) == pytest.approx(0.021)
    assert model.t4.seconds(rows=256, prefill_tokens=0, tp=4) == pytest.approx(0.006)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (GOOD.replace("fixed_ms", "fixed_mss"), "t3.fixed_mss"),
        (GOOD.replace("1.5", "-1"), "t3.fixed_ms"),
        (GOOD.replace("1.5", "inf"), "t3.fixed_ms: Input should be a finite number"),
        (GOOD.replace("20", '"many"'), "t4.row_us"),
        (GOOD.replace('source = "s"\n', ""), "source"),
        (GOOD.replace("[t4]", "[t5]"), "t4"),
        (GOOD.replace("[t4]", "[t4"), "line 5"),
    ],
)
def test_an_error_in_a_file_names_the_field(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "cost.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match="cost model") as raised:
        StepTimes.load(str(path))
    assert str(path) in str(raised.value)
    assert named in str(raised.value)


def test_a_file_that_is_not_there_is_answered_with_the_presets() -> None:
    with pytest.raises(ValueError, match=r"no such file; presets: .*paper-32b"):
        StepTimes.load("no-such-model")
