"""Every rope scaling that transformers has for the families: frequencies, factor and logits equal its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from tests.robustness.served import check_same, edit
from tests.worker_svc.checkpoints import FAMILIES, MAX_POSITIONS, write
from worker_svc.model.config import ModelConfig
from worker_svc.model.rope import inverse_frequencies

ORIGINAL = 64
SHORT, LONG = [1.0, 1.1, 1.3, 1.6], [1.0, 2.5, 4.0, 7.5]  # one for each pair of a head of SHAPE
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL}
LONGROPE = {
    "type": "longrope",
    "short_factor": SHORT,
    "long_factor": LONG,
    "original_max_position_embeddings": ORIGINAL,
}
SCALINGS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"type": "linear", "factor": 2},
    "dynamic": {"type": "dynamic", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": ORIGINAL,
    },
    "yarn": YARN,
    "yarn by its old name": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL},
    "yarn with all": YARN | {"beta_fast": 16, "beta_slow": 2, "truncate": False, "attention_factor": 1.2},
    "yarn with scales": YARN | {"mscale": 1.0, "mscale_all_dim": 0.5},
    "yarn without the original": {"rope_type": "yarn", "factor": 4.0},
    "yarn with a null factor": YARN | {"factor": None},
    "yarn with a null truncate": YARN | {"truncate": None},
    "yarn with a scale of zero": YARN | {"mscale": 0, "mscale_all_dim": 0.5},
    "yarn with a scale of zero in all dimensions": YARN | {"mscale": 0.5, "mscale_all_dim": 0.0},
    "yarn with betas of zero": YARN | {"beta_fast": 0, "beta_slow": 0.0},
    "longrope": LONGROPE,
    "longrope with a factor": LONGROPE | {"factor": 4.0},
    "longrope with its attention": LONGROPE | {"attention_factor": 1.19},
}


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("positions", [ORIGINAL, MAX_POSITIONS])
def test_frequencies_and_factor(tmp_path: Path, family: str, name: str, positions: int) -> None:
    raw = {
        "model_type": family,
        "head_dim": 128,
        "rope_theta": 5e5,
        "max_position_embeddings": MAX_POSITIONS,
        "rope_scaling": SCALINGS[name],
        "sliding_window": None,
    }
    if "long_factor" in SCALINGS[name]:
        raw["rope_scaling"] = SCALINGS[name] | {"short_factor": SHORT * 16, "long_factor": LONG * 16}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    config = AutoConfig.from_pretrained(tmp_path)
    ours = ModelConfig.from_dir(tmp_path).rope
    if ours.kind == "default":
        exponents = torch.arange(0, 128, 2, dtype=torch.int64).float() / 128
        theirs, factor = 1.0 / (5e5**exponents), 1.0
    else:
        theirs, factor = ROPE_INIT_FUNCTIONS[ours.kind](config, "cpu", seq_len=positions)
    torch.testing.assert_close(inverse_frequencies(ours, 128, positions), theirs, rtol=1e-6, atol=0)
    assert ours.attention_factor == pytest.approx(factor)


@pytest.mark.parametrize("name", [name for name in SCALINGS if name != "default"])
def test_logits_at_long_positions(tmp_path: Path, name: str) -> None:
    write(FAMILIES["llama2"], tmp_path)
    edit(tmp_path / "config.json", "rope_parameters", rope_theta=10000, rope_scaling=SCALINGS[name])
    check_same(tmp_path, length=MAX_POSITIONS - 8, max_model_len=MAX_POSITIONS)


def test_a_short_context_takes_the_short_factors(tmp_path: Path) -> None:
    write(FAMILIES["llama2"], tmp_path)
    edit(tmp_path / "config.json", "rope_parameters", rope_theta=10000, rope_scaling=LONGROPE)
    check_same(tmp_path, length=ORIGINAL - 8, max_model_len=ORIGINAL)


def test_the_name_of_longrope_in_the_first_checkpoints(tmp_path: Path) -> None:
    write(FAMILIES["llama2"], tmp_path / "new")
    write(FAMILIES["llama2"], tmp_path / "old")
    for name, scaling in (("new", LONGROPE), ("old", LONGROPE | {"type": "su"})):
        edit(tmp_path / name / "config.json", "rope_parameters", rope_theta=10000, rope_scaling=scaling)
    check_same(tmp_path / "old", reference=tmp_path / "new", length=200)


def test_positions_that_the_config_keeps_outside(tmp_path: Path) -> None:
    """Phi-3's field for the original positions has precedence over the scaling's."""
    write(FAMILIES["llama2"], tmp_path)
    edit(
        tmp_path / "config.json",
        "rope_parameters",
        rope_theta=10000,
        original_max_position_embeddings=32,
        rope_scaling=YARN,
    )
    check_same(tmp_path, length=200)


def test_yarn_serves_the_context_that_it_was_made_for(tmp_path: Path) -> None:
    """As the cards of Qwen2.5 say: 32768 positions in the config, and a factor of 4 for 131072."""
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    raw = {"model_type": "qwen2", "max_position_embeddings": 32768, "rope_scaling": scaling}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert ModelConfig.from_dir(tmp_path).max_positions == 131072
