"""Builds one rank's share of a model from a checkpoint, when the rank starts."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from albireo.checkpoint.files import CheckpointError
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.kernels import interface
from worker_svc.kernels.choice import native_kernels, triton_kernels
from worker_svc.kernels.chunk_choice import chunk_attention
from worker_svc.kernels.interface import ChunkAttention, Heads, Kernels, Norm
from worker_svc.kernels.native import NativeKernels
from worker_svc.kernels.native_weights import PANEL, Int8Weight
from worker_svc.kernels.plain import PlainKernels
from worker_svc.model.attention import Attention, PagedAttention
from worker_svc.model.config import ModelConfig
from worker_svc.model.int8 import NO_INT8, Int8
from worker_svc.model.layers_together import LayersTogether
from worker_svc.model.linear import Head, Linear, RowParallelLinear, VocabParallelEmbedding
from worker_svc.model.native_attention import NativeAttention
from worker_svc.model.ragged_attention import RaggedAttention
from worker_svc.model.rope import RotaryTable
from worker_svc.model.sdpa import SdpaAttention
from worker_svc.model.transformer import MLP, AttentionLayer, Block, Transformer
from worker_svc.model.weight_reader import Weights

logger = logging.getLogger(__name__)

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


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
        int8: Int8 = NO_INT8,
    ) -> None:
        """``int8``: weights are quantized as the files have them, or here. Raises CheckpointError where this
        CPU cannot."""
        self._config = config
        self._weights = weights
        self._group = group
        self._device = device
        self._dtype = dtype
        self._max_model_len = max_model_len
        widths = config.row_widths(group.size)
        self._native = native = native_kernels(device, dtype, widths, config.head_dim, int8_kv=int8.kv)
        if int8.weights and (native is None or not native.has_int8):
            raise CheckpointError(
                f"{weights.directory}: int8 weights take a CPU with AVX512-VNNI, native kernels that are "
                "compiled, and a model whose widths are multiples of 16"
            )
        if int8.kv and native is None:
            raise CheckpointError(
                f"{weights.directory}: int8 KV takes a CPU, native kernels that are compiled, and a model "
                "whose widths are multiples of 16"
            )
        self._int8 = int8.weights
        heads = Heads(config.num_heads // group.size, config.num_kv_heads // group.size)
        triton = triton_kernels(device, dtype, config.hidden_size, heads, config.head_dim)
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
            head=Head(self._quantized(head), self._native),
            rope=RotaryTable(config.rope, config.head_dim, self._max_model_len, self._dtype, self._device),
            kernels=self._kernels,
            attention=self._attention,
            together=LayersTogether.of(blocks, self._native, config.head_dim, self._group),
        )
        if config.int8_weights and not self._int8:
            logger.info("the checkpoint's int8 weights are read as %s, without --weights int8", self._dtype)
        if unread := self._weights.unread():
            names = ", ".join(unread[:3])
            logger.warning("%d tensors of the checkpoint belong to no layer, as %s", len(unread), names)
        return model

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
            return self._vocabulary_rows(EMBEDDING), self._vocabulary_rows(HEAD)
        table = self._vocabulary_rows(EMBEDDING if EMBEDDING in files or HEAD not in files else HEAD)
        if EMBEDDING not in files or HEAD not in files:
            return table, table
        head = self._vocabulary_rows(HEAD)
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
        biases = [self._share(f"{name}.bias", (size,)) for name, size in parts] if bias else []
        added = self._place(torch.cat(biases)) if bias else None
        return Linear(self._weight(shapes), added, self._native)

    def _row_parallel(self, name: str, inputs: int, *, bias: bool) -> RowParallelLinear:
        hidden = self._config.hidden_size
        weight = self._weight({f"{name}.weight": (hidden, inputs)}, dim=1)
        added = self._place(self._weights.read(f"{name}.bias", (hidden,))) if bias else None
        return RowParallelLinear(weight, added, self._group, self._native)

    def _weight(self, shapes: dict[str, tuple[int, int]], dim: int = 0) -> Tensor | Int8Weight:
        """This rank's share of weights, one after the other."""
        if self._int8 and (found := self._stored_int8(shapes, dim)) is not None:
            return found
        whole = torch.cat([self._share(name, shape, dim) for name, shape in shapes.items()])
        return self._quantized(self._place(whole))

    def _stored_int8(self, shapes: dict[str, tuple[int, int]], dim: int) -> Int8Weight | None:
        """As the files have it; None where it is not quantized there, or of a shape that has no product."""
        found = []
        for name, shape in shapes.items():
            size = shape[dim] // self._group.size
            part = self._weights.read_int8(name, shape, dim=dim, start=self._group.rank * size, size=size)
            if part is None:
                return None
            found.append(part)
        numbers, scales = (torch.cat(parts) for parts in zip(*found, strict=True))
        return Int8Weight(numbers, scales) if self._multiplies_int8(numbers) else None

    def _quantized(self, weight: Tensor) -> Tensor | Int8Weight:
        return Int8Weight.of(weight) if self._int8 and self._multiplies_int8(weight) else weight

    def _multiplies_int8(self, weight: Tensor) -> bool:
        return self._native is not None and self._native.multiplies_int8(*weight.shape)

    def _share(self, name: str, shape: tuple[int, ...], dim: int = 0) -> Tensor:
        size = shape[dim] // self._group.size
        return self._weights.read(name, shape, dim=dim, start=self._group.rank * size, size=size)

    def _vocabulary_rows(self, name: str) -> Tensor:
        """This rank's rows of a table over the vocabulary, padded with zeros to the same number each: whole
        panels of a native product."""
        vocabulary, hidden = self._config.vocab_size, self._config.hidden_size
        size = -(-vocabulary // (self._group.size * PANEL)) * PANEL
        rows = self._weights.read(name, (vocabulary, hidden), start=self._group.rank * size, size=size)
        if len(rows) < size:
            rows = torch.cat([rows, rows.new_zeros(size - len(rows), hidden)])
        return self._place(rows)

    def _norm(self, name: str, size: int) -> Norm:
        return Norm(self._place(self._weights.read(name, (size,))), self._config.rms_norm_eps)

    def _place(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device)


def _paged_attention(
    native: NativeKernels | None, ragged: interface.RaggedAttention | None, chunks: ChunkAttention | None
) -> PagedAttention:
    if native is not None:
        return NativeAttention(native)
    return SdpaAttention() if ragged is None or chunks is None else RaggedAttention(ragged, chunks)
