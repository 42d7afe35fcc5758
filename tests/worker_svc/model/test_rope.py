"""Rotary embedding against transformers', for every kind of scaling."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from tests.worker_svc.checkpoints import LINEAR, LLAMA3, SHAPE
from worker_svc.kernels.plain import rotate
from worker_svc.model.rope import RotaryTable, inverse_frequencies
from worker_svc.model.rope_config import RopeConfig

POSITIONS = 300
HEAD_DIM = 64
KINDS = {
    "default": ({"rope_type": "default", "rope_theta": 5e5}, RopeConfig("default", 5e5)),
    "linear": (LINEAR, RopeConfig("linear", 1e4, 2.0)),
    "llama3": (LLAMA3, RopeConfig("llama3", 1e4, 4.0, 1.0, 4.0, 64)),
}


def theirs(parameters: dict[str, Any]) -> LlamaRotaryEmbedding:
    return LlamaRotaryEmbedding(LlamaConfig(**SHAPE, head_dim=HEAD_DIM, rope_parameters=parameters))


@pytest.mark.parametrize("kind", KINDS)
def test_tables_and_rotation(kind: str) -> None:
    parameters, config = KINDS[kind]
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 3, POSITIONS, HEAD_DIM)
    cos, sin = theirs(parameters)(q, torch.arange(POSITIONS)[None])
    expected = apply_rotary_pos_emb(q, k, cos, sin)
    table = RotaryTable(config, HEAD_DIM, POSITIONS, torch.float32, torch.device("cpu"))
    ours = table.at(torch.arange(POSITIONS))
    torch.testing.assert_close(ours[0][:, 0], cos[0, :, : HEAD_DIM // 2], atol=1e-6, rtol=0)
    torch.testing.assert_close(ours[1][:, 0], sin[0, :, : HEAD_DIM // 2], atol=1e-6, rtol=0)
    for x, rotated in zip((q, k), expected, strict=True):
        torch.testing.assert_close(rotate(x[0].transpose(0, 1), *ours), rotated[0].transpose(0, 1))


def test_llama3_has_all_its_bands() -> None:
    """Else the comparison above would not have seen the blend."""
    plain = inverse_frequencies(RopeConfig("default", 1e4), HEAD_DIM, POSITIONS)
    ratio = inverse_frequencies(KINDS["llama3"][1], HEAD_DIM, POSITIONS) / plain
    assert (ratio == 1).any()
    assert torch.isclose(ratio, torch.tensor(0.25)).any()
    assert ((ratio > 0.26) & (ratio < 0.99)).any()


def test_positions_in_any_order() -> None:
    table = RotaryTable(RopeConfig("default", 1e4), HEAD_DIM, 32, torch.float32, torch.device("cpu"))
    cos, sin = table.at(torch.tensor([31, 0, 5, 5]))
    assert cos.shape == sin.shape == (4, 1, HEAD_DIM // 2)
    assert torch.equal(cos[1], torch.ones(1, HEAD_DIM // 2))
    assert torch.equal(sin[2], sin[3])
    assert not torch.equal(sin[0], sin[2])
