"""The rule of thumb and the definition of t_e against what the paper measured (read off its plots)."""

from __future__ import annotations

from pathlib import Path

import pytest

from albireo.planning.choice.rule_of_thumb import rule_of_thumb, t_e_by_definition
from tests.albireo.planning.choice.models import write_model
from worker_svc.cost.shape import ModelShape
from worker_svc.model.config import ModelConfig

VLLM = {"13B": {1: 2.6, 2: 4.7, 4: 7.8}, "32B": {2: 4.1, 4: 6.65, 8: 8.3}, "70B": {4: 3.9, 8: 6.05}}
ALBIREO = {"13B": {1: 2.9, 2: 6.4, 4: 12.4}, "32B": {2: 5.1, 4: 11.25, 8: 18.0}, "70B": {4: 5.0, 8: 10.65}}


@pytest.mark.parametrize(
    ("gigabytes", "degree"), [(15.2, 1), (26.0, 2), (29.5, 2), (65.5, 4), (141.1, 8), (145.4, 8)]
)
def test_the_rule_gives_the_degrees_of_the_papers_models_on_80_gb(gigabytes: float, degree: int) -> None:
    assert rule_of_thumb(gigabytes * 1e9, 80e9) == degree


@pytest.mark.parametrize(("name", "degree"), [("Qwen2.5-32B-Instruct", 4), ("Llama-3.1-70B", 8)])
def test_the_rule_holds_for_weights_counted_from_a_config(tmp_path: Path, name: str, degree: int) -> None:
    config = ModelConfig.from_dir(write_model(tmp_path, name))
    assert rule_of_thumb(ModelShape(config, 1).weight_bytes, 80e9) == degree


@pytest.mark.parametrize(("model", "degree"), [("13B", 2), ("32B", 4), ("70B", 8)])
def test_by_definition_the_papers_overlapped_throughputs_have_its_t_e(model: str, degree: int) -> None:
    assert t_e_by_definition(ALBIREO[model]) == degree


@pytest.mark.parametrize(("model", "degree"), [("13B", 1), ("32B", 2), ("70B", 4)])
def test_by_definition_t_e_is_half_as_large_without_the_overlap(model: str, degree: int) -> None:
    assert t_e_by_definition(VLLM[model]) == degree


def test_degrees_between_the_powers_are_not_looked_at() -> None:
    assert t_e_by_definition({1: 1.0, 2: 2.0, 3: 9.0, 4: 3.9}) == 2
