"""The sizes of a model on one rank: bytes of weights and KV, and parameters that a row is multiplied with.

The cost model and the sizing of memory compute with them. The layouts are those of
``worker_svc/model/loader.py``: layers are cut over the ranks, the vocabulary is padded to equal parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from worker_svc.model.config import ModelConfig


@dataclass(frozen=True)
class ModelShape:
    """``config`` on one of ``tp`` ranks, with ``dtype_bytes`` a number. Simulations ask it in every step."""

    config: ModelConfig
    tp: int
    dtype_bytes: int = 2

    @cached_property
    def layer_parameters(self) -> float:
        """Of the matrices of all layers, a rank's part."""
        c = self.config
        attention = c.hidden_size * c.head_dim * (2 * c.num_heads + 2 * c.num_kv_heads)
        return c.num_layers * (attention + 3 * c.hidden_size * c.intermediate_size) / self.tp

    @cached_property
    def vocabulary(self) -> int:
        """Columns of the logits on one rank."""
        return -(-self.config.vocab_size // self.tp)

    @cached_property
    def head_parameters(self) -> int:
        """Of the LM head, a rank's part."""
        return self.vocabulary * self.config.hidden_size

    @cached_property
    def weight_bytes(self) -> float:
        """What a rank holds: layers, norms, embedding, and the LM head where it is not the embedding."""
        c = self.config
        tables = 1 if c.tied_embeddings else 2
        norms = (2 * c.num_layers + 1) * c.hidden_size
        return (self.layer_parameters + tables * self.head_parameters + norms) * self.dtype_bytes

    @cached_property
    def kv_token_bytes(self) -> float:
        """Keys and values of one token on a rank, over all layers."""
        c = self.config
        return 2 * c.num_layers * c.num_kv_heads * c.head_dim * self.dtype_bytes / self.tp

    @cached_property
    def pair_operations(self) -> float:
        """Operations for one token that attends to one other, over all layers: two products of head_dim."""
        c = self.config
        return 4 * c.num_layers * c.num_heads * c.head_dim / self.tp
