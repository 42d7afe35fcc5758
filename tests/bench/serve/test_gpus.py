"""Power and energy of a run, from what ranks announced."""

from __future__ import annotations

import pytest

from albireo.v1 import control_pb2 as control
from bench.serve.gpus import Sample, summarize_gpus


def sample(at: float, *gpus: tuple[float, float, float]) -> Sample:
    """``gpus``: utilization, watts, joules."""
    return Sample(
        at,
        [
            control.Gpu(rank=rank, utilization=used, watts=watts, joules=joules)
            for rank, (used, watts, joules) in enumerate(gpus)
        ],
    )


def test_energy_counters_tell_the_power() -> None:
    samples = [
        sample(0, (0.5, 1, 1000), (0.5, 1, 5000)),
        sample(5, (1.0, 1, 1600), (1.0, 1, 5700)),
        sample(10, (1.0, 1, 4000), (1.0, 1, 7000)),
    ]
    found = summarize_gpus(samples, seconds=8, output_tokens=400)
    assert found == {
        "gpus": 2,
        "utilization": pytest.approx(5 / 6),
        "watts": 500,
        "joules_per_output_token": 10,
    }


def test_gpus_of_two_groups_count_each() -> None:
    """Both have a rank 0."""
    samples = [
        Sample(at, [control.Gpu(group=group, joules=at * watts) for group, watts in (("a", 100), ("b", 200))])
        for at in (0, 10)
    ]
    assert summarize_gpus(samples, seconds=8, output_tokens=400)["watts"] == 300


def test_without_counters_the_readings_do() -> None:
    samples = [Sample(at, [control.Gpu(watts=watts)]) for at, watts in ((0, 100), (1, 300))]
    assert summarize_gpus(samples, seconds=2, output_tokens=4) == {
        "gpus": 1,
        "watts": 200,
        "joules_per_output_token": 100,
    }


def test_no_gpu_is_nothing_to_tell() -> None:
    assert summarize_gpus([Sample(0, []), Sample(1, [])], 1, 1) == {}
    assert summarize_gpus([], 1, 1) == {}


def test_a_gpu_that_tells_nothing_has_no_power() -> None:
    assert summarize_gpus([Sample(0, [control.Gpu()]), Sample(1, [control.Gpu()])], 1, 1) == {"gpus": 1}
