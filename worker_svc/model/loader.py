"""Builds one rank's share of a model from a checkpoint, when the rank starts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from albireo.checkpoint.files import CheckpointError
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.kernels import interface
from worker_svc.kernels.choice import native_kernels, quantized_products, triton_kernels
from worker_svc.kernels.chunk_choice import chunk_attention
from worker_svc.kernels.interface import ChunkAttention, Heads, Kernels, Norm
from worker_svc.kernels.native import NativeKernels
from worker_svc.kernels.plain import PlainKernels
from worker_svc.kernels.quantized import QuantizedProducts, QuantizedWeight
from worker_svc.kernels.scaled_products import FP8
from worker_svc.model.attention import Attention, PagedAttention
from worker_svc.model.config import ModelConfig
from worker_svc.model.formats import AS_THE_MODEL, Formats
from worker_svc.model.layers_together import LayersTogether
from worker_svc.model.linear import Head, Linear, RowParallelLinear, VocabParallelEmbedding
from worker_svc.model.native_attention import NativeAttention
from worker_svc.model.ragged_attention import RaggedAttention
from worker_svc.model.rank_weights import RankWeights
from worker_svc.model.rope import RotaryTable
from worker_svc.model.sdpa import SdpaAttention
from worker_svc.model.transformer import MLP, AttentionLayer, Block, Transformer
from worker_svc.model.weight_reader import Weights

if TYPE_CHECKING:
    from worker_svc.kernels.triton_kernels import TritonKernels

logger = logging.getLogger(__name__)

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
EIGHT_BITS = {"int8": torch.int8, "fp8": FP8}
"""Formats of weights, as torch calls them."""


class Loader:
    """Reads the slices that ``group.rank`` needs and puts the layers together.

    Layers whose outputs are cut (q, k, v, gate, up, vocabulary) are split by rows of the weight; those
    whose inputs are cut (attention output, down) by its columns.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights,
        group: TPGroup,
        device: torch.device,
        dtype: torch.dtype,
        max_model_len: int,
        formats: Formats = AS_THE_MODEL,
    ) -> None:
        """``formats``: weights are quantized as the files have them, or here. Raises CheckpointError where
        the device cannot."""
        self._config = config
        self._weights = weights
        self._group = group
        self._device = device
        self._dtype = dtype
        self._max_model_len = max_model_len
        widths = config.row_widths(group.size)
        int8_kv = formats.kv == "int8"
        self._native = native = native_kernels(device, dtype, widths, config.head_dim, int8_kv=int8_kv)
        if int8_kv and native is None:
            raise CheckpointError(
                f"{weights.directory}: int8 KV takes a CPU, native kernels that are compiled, and a model "
                "whose widths are multiples of 16"
            )
        self._formats = formats
        heads = Heads(config.num_heads // group.size, config.num_kv_heads // group.size)
        triton = triton_kernels(device, dtype, config.hidden_size, heads, config.head_dim)
        self._read = RankWeights(weights, group, device, self._products(triton))
        self._kernels: Kernels = native or triton or PlainKernels()
        chunks = None
        if triton is not None:
            chunks = chunk_attention(device, dtype, heads, config.head_dim, triton)
        self._attention = Attention(_paged_attention(native, triton, chunks))

    def load(self) -> Transformer:
        """Raises CheckpointError for a tensor that is missing or has another shape."""
        config = self._config
        table, head = self._embedding_and_head()
        blocks = tuple(self._block(f"model.layers.{i}.") for i in range(config.num_layers))
        model = Transformer(
            config=config,
            embedding=VocabParallelEmbedding(table, self._group),
            blocks=blocks,
            norm=self._norm("model.norm.weight", config.hidden_size),
            head=Head(self._head_weight(head), self._native),
            rope=RotaryTable(config.rope, config.head_dim, self._max_model_len, self._dtype, self._device),
            kernels=self._kernels,
            attention=self._attention,
            together=LayersTogether.of(blocks, self._native, config.head_dim, self._group),
        )
        self._log_formats()
        if unread := self._weights.unread():
            names = ", ".join(unread[:3])
            logger.warning("%d tensors of the checkpoint belong to no layer, as %s", len(unread), names)
        return model

    def _products(self, triton: TritonKernels | None) -> QuantizedProducts | None:
        """Of weights in 8 bits, where they are asked for."""
        kind = self._formats.weights
        if kind == "dtype":
            return None
        try:
            return quantized_products(EIGHT_BITS[kind], self._device, self._dtype, self._native, triton)
        except RuntimeError as error:
            raise CheckpointError(f"{self._weights.directory}: --weights {kind}: {error}") from error

    def _head_weight(self, head: Tensor) -> Tensor | QuantizedWeight:
        """As it is with FP8, whose steps are coarse: half of its divergence came from the head."""
        return head if self._formats.weights == "fp8" else self._read.quantized(HEAD, head)

    def _log_formats(self) -> None:
        stored, wanted, left = self._config.stored_weights, self._formats.weights, self._read.left
        if stored not in ("dtype", wanted):
            logger.info(
                "weights of the checkpoint in %s are read as floats, without --weights %s", *[stored] * 2
            )
        if left:
            shapes = "no product in %s takes the shapes of %d weights, as of %s: they stay in %s"
            logger.info(shapes, wanted, len(left), left[0], self._dtype)

    def _embedding_and_head(self) -> tuple[Tensor, Tensor]:
        """Tied, they are one table, which the files may hold under either name or, where they came from
        training that untied them, as two that differ: then both are taken, as transformers does."""
        config, files = self._config, self._weights
        if not config.tied_embeddings:
            if HEAD not in files:
                raise CheckpointError(
                    f"{files.directory}: tensor {HEAD} is missing; if the embedding is the head, say "
                    "tie_word_embeddings: true in config.json"
                )
            return self._table(EMBEDDING), self._table(HEAD)
        table = self._table(EMBEDDING if EMBEDDING in files or HEAD not in files else HEAD)
        if EMBEDDING not in files or HEAD not in files:
            return table, table
        head = self._table(HEAD)
        if table.is_meta or torch.equal(table, head):  # headers alone do not say whether they differ
            return table, table
        logger.warning(
            "%s: config.json says tie_word_embeddings, but %s differs from the embedding: it is used",
            files.directory,
            HEAD,
        )
        return table, head

    def _block(self, prefix: str) -> Block:
        config, tp = self._config, self._group.size
        attention = prefix + "self_attn."
        q_size, kv_size = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        head_dim = config.head_dim
        qkv = [(f"{attention}{n}_proj", size) for n, size in (("q", q_size), ("k", kv_size), ("v", kv_size))]
        gate_up = [(f"{prefix}mlp.{n}_proj", config.intermediate_size) for n in ("gate", "up")]
        return Block(
            attention_norm=self._norm(prefix + "input_layernorm.weight", config.hidden_size),
            attention=AttentionLayer(
                qkv=self._column_parallel(qkv, bias=config.qkv_bias),
                out=self._row_parallel(attention + "o_proj", q_size, bias=config.output_bias),
                heads=Heads(
                    queries=config.num_heads // tp,
                    kv=config.num_kv_heads // tp,
                    q_norm=self._norm(attention + "q_norm.weight", head_dim) if config.qk_norm else None,
                    k_norm=self._norm(attention + "k_norm.weight", head_dim) if config.qk_norm else None,
                ),
                kernels=self._kernels,
                attend=self._attention,
            ),
            mlp_norm=self._norm(prefix + "post_attention_layernorm.weight", config.hidden_size),
            mlp=MLP(
                gate_up=self._column_parallel(gate_up, bias=config.mlp_bias),
                down=self._row_parallel(
                    prefix + "mlp.down_proj", config.intermediate_size, bias=config.mlp_bias
                ),
                kernels=self._kernels,
            ),
            kernels=self._kernels,
        )

    def _column_parallel(self, parts: list[tuple[str, int]], *, bias: bool) -> Linear:
        """Several layers of the same input as one: (name, outputs) each."""
        shapes = {f"{name}.weight": (size, self._config.hidden_size) for name, size in parts}
        added = self._read.shares({f"{name}.bias": (size,) for name, size in parts}) if bias else None
        return Linear(self._read.weight(shapes), added, self._native)

    def _row_parallel(self, name: str, inputs: int, *, bias: bool) -> RowParallelLinear:
        hidden = self._config.hidden_size
        weight = self._read.weight({f"{name}.weight": (hidden, inputs)}, dim=1)
        added = self._read.whole(f"{name}.bias", (hidden,)) if bias else None
        return RowParallelLinear(weight, added, self._group, self._native)

    def _table(self, name: str) -> Tensor:
        """This rank's rows of a table over the vocabulary."""
        return self._read.rows_of_table(name, self._config.vocab_size, self._config.hidden_size)

    def _norm(self, name: str, size: int) -> Norm:
        return Norm(self._read.whole(name, (size,)), self._config.rms_norm_eps)


def _paged_attention(
    native: NativeKernels | None, ragged: interface.RaggedAttention | None, chunks: ChunkAttention | None
) -> PagedAttention:
    if native is not None:
        return NativeAttention(native)
    return SdpaAttention() if ragged is None or chunks is None else RaggedAttention(ragged, chunks)
