"""What a session runs, in this order. On a GPU all limits together are 8 minutes, vLLM's apart."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch

from albireo.models import TINY
from bench.gpu_session.gpu_tests import ARGUMENTS, counts
from bench.gpu_session.model import FULL
from bench.gpu_session.part import RESULT, Part
from bench.gpu_session.shapes import write_shape

VLLM_ROWS = 64
NO_VLLM = "vLLM is not installed: its wheels are larger than what can be carried along"
BENCH = ("-m", "albireo.cli", "bench")


def all_parts(device: str, shape: str, scratch: Path, *, quick: bool) -> list[Part]:
    """``shape``: one of ``SHAPES``, written to ``scratch``. ``quick``: little of everything, and the bundled
    model where a checkpoint is needed."""
    write_shape(shape, scratch / "shape")
    checkpoint = TINY if quick else scratch / "checkpoint"
    gpu = "" if device == "cuda" and torch.cuda.is_available() else "torch finds no CUDA device here"
    model = ("-m", "bench.gpu_session.model", str(scratch / "shape"), RESULT, "--device", device)
    return [
        Part("environment", ("-m", "bench.gpu_session.environment", RESULT), 30),
        Part("tests", ARGUMENTS, 150, counts, skipped=gpu),
        Part("model", (*model, "--quick") if quick else model, 120),
        _sampling(device, quick=quick),
        Part(
            "checkpoint",
            ("-m", "bench.throughput.random_checkpoint", str(checkpoint)),
            30,
            lambda result, output: {},
            skipped="the bundled model is taken" if quick else "",
        ),
        _overhead(device, checkpoint, quick=quick),
        _vllm(scratch / "shape", device),
    ]


def _sampling(device: str, *, quick: bool) -> Part:
    few = ("--batch", "4", "--vocabulary", "700", "--rounds", "2")
    rows = [word for batch in FULL.rows for word in ("--batch", str(batch))]
    controls = [word for name in ("greedy", "top_k + top_p", "all") for word in ("--controls", name)]
    load = few if quick else (*rows, *controls, "--dtype", "bfloat16")
    return Part(
        "sampling", (*BENCH, "sampling", "--device", device, "--tp", "1", *load, "--json", RESULT), 40
    )


def _overhead(device: str, checkpoint: Path, *, quick: bool) -> Part:
    load = ("--batch", "4", "--outputs", "64") if quick else ("--batch", "64", "--outputs", "256")
    what = ("--model", str(checkpoint), "--device", device, *load)
    # Its prompts come once: no KV tier is needed, and to pin a quarter of the main memory takes long.
    no_tier = {"ALBIREO_WORKER_KV_HOST_MEMORY": "none"}
    return Part("overhead", (*BENCH, "overhead", *what, "--json", RESULT), 110, environment=no_tier)


def _vllm(shape: Path, device: str) -> Part:
    """The same shape with random weights of its own: prompts and outputs as those of the decode steps."""
    skipped = NO_VLLM if importlib.util.find_spec("vllm") is None else ""
    if device != "cuda":
        skipped = "it is compared on a GPU"
    options: dict[str, Any] = {
        "model": shape,
        "dtype": "bfloat16",
        "load-format": "dummy",
        "input-len": FULL.prompt,
        "output-len": FULL.outputs,
        "batch-size": VLLM_ROWS,
        "num-iters-warmup": 1,
        "num-iters": 3,
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    command = ("-m", "vllm.entrypoints.cli.main", "bench", "latency", "--skip-tokenizer-init", *arguments)
    return Part("vllm", (*command, "--output-json", RESULT), 240, skipped=skipped)
