"""What 8 bits cost in quality, in weights and in KV: distributions of the next token, against those of fp32.

    python -m bench.quantization_quality DIR

The texts are docstrings of Python's standard library. At each of their positions it compares what the model
says of the next token: Kullback-Leibler divergence from fp32 (in nats), and how often the likeliest token is
the same. bf16, which most checkpoints are served in, is next to it.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer
from torch import Tensor

from albireo.checkpoint.files import CheckpointError
from albireo.contract.plan import BLOCK_SIZE, blocks_for
from bench.machine import machine
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.model.attention import AttentionPlan, RowGroup
from worker_svc.model.causal_mask import CausalMasks
from worker_svc.model.config import ModelConfig
from worker_svc.model.formats import AS_THE_MODEL, Formats
from worker_svc.model.kv_cache import allocate, kv_dtype
from worker_svc.model.loader import Loader
from worker_svc.model.weight_reader import WeightReader

CPU = torch.device("cpu")
LONGEST = 256
"""Tokens of a text; the rest of it is left out."""
SHORTEST = 32


class Kind(NamedTuple):
    """What numbers are kept in."""

    dtype: torch.dtype  # of what is not in 8 bits
    formats: Formats = AS_THE_MODEL


EXACT = "fp32"
KINDS = {
    EXACT: Kind(torch.float32),
    "bf16": Kind(torch.bfloat16),
    "bf16, KV int8": Kind(torch.bfloat16, Formats(kv="int8")),
    "weights int8": Kind(torch.bfloat16, Formats("int8")),
    "weights fp8": Kind(torch.bfloat16, Formats("fp8")),
    "weights int8, KV int8": Kind(torch.bfloat16, Formats("int8", "int8")),
}


@dataclass(frozen=True)
class Quality:
    """Of one kind, over all positions of all texts."""

    kind: str
    mean_kl: float
    p99_kl: float
    same_top_token: float  # share of the positions


class Model:
    """A model of one kind, without a runner: every position of a text has logits."""

    def __init__(self, directory: Path, kind: Kind) -> None:
        self._config = config = ModelConfig.from_dir(directory)
        dtype, formats = kind
        reader = WeightReader(directory, dtype)
        self._model = Loader(config, reader, TPGroup(), CPU, dtype, LONGEST, formats).load()
        self._cache = allocate(blocks_for(LONGEST), config, 1, kv_dtype(formats, dtype), CPU)
        self._masks = CausalMasks(LONGEST, dtype, CPU)

    def log_probabilities(self, ids: Tensor) -> Tensor:
        """``[n, vocabulary]`` fp64 of ``ids`` ``[n]``."""
        rows = torch.arange(len(ids))
        blocks = torch.arange(blocks_for(len(ids)))
        mask = self._masks.rows(rows, len(blocks) * BLOCK_SIZE)[None, None]
        plan = AttentionPlan((), (RowGroup(0, blocks, rows, mask),))
        logits = self._model(ids, rows, rows, rows, plan, self._cache.layers)[:, : self._config.vocab_size]
        return logits.double().log_softmax(-1)


def texts() -> Iterator[str]:
    """Docstrings of the standard library, file by file; none of it is run."""
    for path in sorted(Path(ast.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (
                text := ast.get_docstring(node)
            ):
                yield text


def prompts(directory: Path, count: int) -> list[Tensor]:
    """Ids of the first ``count`` texts that are long enough."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    found: list[Tensor] = []
    for text in texts():
        ids = tokenizer.encode(text).ids[:LONGEST]
        if len(ids) >= SHORTEST:
            found.append(torch.tensor(ids))
        if len(found) == count:
            break
    return found


@torch.inference_mode()
def measure(directory: Path, ids: list[Tensor]) -> list[Quality]:
    """All kinds but fp32, against it."""
    models = {name: Model(directory, kind) for name, kind in KINDS.items()}
    divergences: dict[str, list[Tensor]] = {name: [] for name in KINDS if name != EXACT}
    same: dict[str, list[Tensor]] = {name: [] for name in divergences}
    for text in ids:
        exact = models[EXACT].log_probabilities(text)
        for name in divergences:
            found = models[name].log_probabilities(text)
            divergences[name].append((exact.exp() * (exact - found)).sum(-1))
            same[name].append(exact.argmax(-1) == found.argmax(-1))
    rows = []
    for name, parts in divergences.items():
        all_of_them = torch.cat(parts)
        agreement = float(torch.cat(same[name]).double().mean())
        rows.append(Quality(name, float(all_of_them.mean()), float(all_of_them.quantile(0.99)), agreement))
    return rows


def main(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint with a tokenizer.json.")],
    count: Annotated[int, typer.Option(min=1, help="Texts.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Prints a row for each kind."""
    ids = prompts(checkpoint, count)
    try:
        rows = measure(checkpoint, ids)
    except CheckpointError as error:
        raise typer.BadParameter(str(error)) from None
    setup = f"{machine()}; {len(ids)} texts, {sum(map(len, ids))} positions"
    if as_json:
        print(json.dumps({"setup": setup, "rows": [asdict(row) for row in rows]}, indent=2))
        return
    table = Table("kind", "mean KL", "p99 KL", "same top token", caption=setup)
    for row in rows:
        table.add_row(row.kind, f"{row.mean_kl:.5f}", f"{row.p99_kl:.4f}", f"{row.same_top_token:.2%}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
