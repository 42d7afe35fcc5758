"""Small random checkpoints of every family, and what transformers makes of them: the oracle's truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from albireo.contract.plan import SamplingParams
from worker_svc.sampling.random_numbers import uniforms

VOCAB = 131  # prime: every TP degree has to pad it
MAX_POSITIONS = 256

SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": MAX_POSITIONS,
    "bos_token_id": None,
    "eos_token_id": None,
    "tie_word_embeddings": False,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
# Small enough for all three bands of wavelengths to occur within a head of 8.
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@dataclass(frozen=True)
class Family:
    """One kind of checkpoint: its config in addition to SHAPE, and how it is stored."""

    config: type[transformers.PretrainedConfig]
    fields: dict[str, Any]
    sharded: bool = False
    dtype: torch.dtype = torch.float32


FAMILIES = {
    "llama2": Family(LlamaConfig, {"num_key_value_heads": 8}),
    "llama-linear": Family(LlamaConfig, {"rope_parameters": LINEAR}),
    "llama31": Family(LlamaConfig, {"rope_parameters": LLAMA3}, sharded=True),
    "llama32-tied": Family(LlamaConfig, {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "llama-biased": Family(LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "mistral": Family(MistralConfig, {"head_dim": 16}, sharded=True),
    "qwen2": Family(Qwen2Config, {}, sharded=True),
    "qwen25-tied": Family(Qwen2Config, {"tie_word_embeddings": True}, dtype=torch.bfloat16),
    "qwen3": Family(Qwen3Config, {"head_dim": 16}, dtype=torch.bfloat16),
    "qwen3-tied": Family(Qwen3Config, {"head_dim": 8, "tie_word_embeddings": True}, sharded=True),
}


def write(family: Family, directory: Path, **overrides: Any) -> None:
    """Saves a random model of the family as transformers does."""
    torch.manual_seed(7)
    config = family.config(**(SHAPE | family.fields | overrides))
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _randomize(name, parameter)
    model.to(family.dtype).save_pretrained(directory, max_shard_size="100KB" if family.sharded else "1GB")


def _randomize(name: str, parameter: Tensor) -> None:
    """Far from transformers' own start: norms of ones and biases of zeros would hide mistakes.

    The layers outweigh the embedding, or tied models would repeat their input for ever.
    """
    if "norm" in name:
        parameter.uniform_(0.5, 1.5)
    elif name.endswith("bias"):
        parameter.normal_(std=0.5)
    elif "embed" in name or "lm_head" in name:
        parameter.normal_(std=0.4)
    else:
        parameter.normal_(std=1.4 * parameter.shape[1] ** -0.5)


@dataclass(frozen=True)
class Truth:
    """What a request must bring: its ids, and the logits that each was chosen from."""

    ids: list[int]
    logits: Tensor  # [ids, vocabulary]


class Reference:
    """A checkpoint run by transformers: eager attention, one request at a time."""

    def __init__(self, directory: Path, dtype: torch.dtype = torch.float32) -> None:
        self._model = transformers.AutoModelForCausalLM.from_pretrained(
            directory, dtype=dtype, attn_implementation="eager"
        ).eval()

    @torch.inference_mode()
    def logits(self, tokens: tuple[int, ...]) -> Tensor:
        """``[tokens, vocabulary]`` in fp32, without any cache."""
        found: Tensor = self._model(torch.tensor([tokens]), use_cache=False).logits[0]
        return found.float()

    @torch.inference_mode()
    def generate(self, prompt: tuple[int, ...], sampling: SamplingParams) -> Truth:
        """Greedy, or drawn at a temperature, without other controls; ends at max_tokens."""
        choose = _greedy if sampling.temperature == 0 else _drawer(sampling)
        ids: list[int] = []
        rows: list[Tensor] = []
        while len(ids) < sampling.max_tokens:
            rows.append(self.logits((*prompt, *ids))[-1])
            ids.append(choose(rows[-1], len(ids)))
        return Truth(ids, torch.stack(rows))


class Ambiguous(Exception):
    """An id hangs on less than rounding can shift: no two programs need agree on it."""


def _greedy(logits: Tensor, index: int) -> int:
    first, second = logits.topk(2).values.tolist()
    if first - second < 2e-3:
        raise Ambiguous
    return int(logits.argmax())


def _drawer(sampling: SamplingParams) -> Callable[[Tensor, int], int]:
    def choose(logits: Tensor, index: int) -> int:
        u = float(uniforms(np.array([sampling.seed], np.uint64), np.array([index]))[0])
        cumulative = (logits.double() / sampling.temperature).softmax(-1).cumsum(-1)
        if float((cumulative - u).abs().min()) < 1e-5:
            raise Ambiguous
        return int((cumulative <= u).sum())

    return choose


def unambiguous(
    reference: Reference, prefix: tuple[int, ...], length: int, sampling: SamplingParams
) -> tuple[tuple[int, ...], Truth]:
    """A prompt of ``length`` that begins with ``prefix``, and outputs that leave no room for two answers."""
    for seed in range(100):
        draw = torch.Generator().manual_seed(1000 * length + seed)
        rest = torch.randint(VOCAB, (length - len(prefix),), generator=draw).tolist()
        prompt = (*prefix, *rest)
        try:
            truth = reference.generate(prompt, sampling)
        except Ambiguous:
            continue
        if len(set(truth.ids)) > len(truth.ids) // 4:  # a loop of a few tokens would prove little
            return prompt, truth
    raise AssertionError("this model is always ambiguous, or always loops")
