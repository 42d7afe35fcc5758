"""Checks torch as workers need it. Imports torch, so it is imported only where that is installed."""

from __future__ import annotations

import torch
import torch.distributed as dist

from albireo.tools.doctor.finding import Finding, failure, note, ok, size, warning
from albireo.tools.fastest import best_seconds
from worker_svc.collectives.tp_group import compute_threads
from worker_svc.main import DTYPES
from worker_svc.model.config import ModelConfig
from worker_svc.settings import WorkerSettings

ROWS, WIDTH = 16, 2048
"""A small batch through a layer of a small model."""
CHUNK_ROWS, CHUNK_OPERATIONS = 512, 4 << 30
"""A chunk of a prompt, and the most that is computed of it."""


def check_torch(settings: WorkerSettings, tp: int) -> list[Finding]:
    """``tp``: ranks on this machine."""
    found = [_version()]
    if settings.device == "cuda":
        found += [_devices(tp), _nccl(tp)]
    elif settings.device == "cpu":  # a simulated one computes nothing
        found += [_threads(settings, tp), _types(settings)]
    return [*found, _gloo(tp, needed=settings.device != "cuda")]


def _version() -> Finding:
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    onednn = "oneDNN" if torch.backends.mkldnn.is_available() else "no oneDNN"
    return ok("torch", f"{torch.__version__}, built with {built}, {onednn}")


def _threads(settings: WorkerSettings, tp: int) -> Finding:
    cores, share = compute_threads(1), compute_threads(tp)
    threads = settings.threads or share
    found = f"{cores} cores for {tp} rank(s), up to {threads} threads each"
    if tp > cores:
        return warning("cpu threads", found, "lower --tp: ranks that share a core wait for each other")
    if threads > share:
        return warning(
            "cpu threads",
            found,
            f"lower ALBIREO_WORKER_THREADS to {share} (0: the fair share): ranks would wait for each other's",
        )
    return ok("cpu threads", found)


def _types(settings: WorkerSettings) -> Finding:
    """Whether bfloat16 is worth it here."""
    capability = torch.backends.cpu.get_cpu_capability()
    plain, half = _seconds(torch.float32), _seconds(torch.bfloat16)
    found = (
        f"{capability}; a product of {ROWS} rows takes {plain * 1e3:.2f} ms in float32, "
        f"{half * 1e3:.2f} ms in bfloat16"
    )
    if settings.dtype == "bfloat16" and half > 1.2 * plain:
        return warning(
            "cpu types",
            found,
            "--dtype float32 is faster on this CPU, if there is memory for twice the bytes",
        )
    return ok("cpu types", found)


def _seconds(dtype: torch.dtype) -> float:
    rows, weight = torch.ones(ROWS, WIDTH, dtype=dtype), torch.ones(WIDTH, WIDTH, dtype=dtype)
    return best_seconds(lambda: torch.nn.functional.linear(rows, weight), torch.device("cpu"), times=8)


def chunk_rate(settings: WorkerSettings, config: ModelConfig, tp: int) -> float | None:
    """Operations per second of one rank in a chunk of a prompt, by the product of a layer's largest matrix;
    ``tp`` ranks on CPUs share them. None for a device that is not there."""
    if settings.device == "sim" or (settings.device == "cuda" and not torch.cuda.is_available()):
        return None
    device, dtype = torch.device(settings.device), DTYPES[settings.dtype]
    inner, outer = config.hidden_size, max(1, config.intermediate_size // tp)
    rows = max(ROWS, min(CHUNK_ROWS, CHUNK_OPERATIONS // (2 * inner * outer)))
    chunk = torch.randn(rows, inner, device=device).to(dtype)
    weight = torch.randn(outer, inner, device=device).to(dtype)
    seconds = best_seconds(lambda: torch.nn.functional.linear(chunk, weight), device, times=3)
    return 2 * rows * inner * outer / seconds / (tp if device.type == "cpu" else 1)


def _devices(tp: int) -> Finding:
    if not torch.cuda.is_available():
        why = "this torch is built without CUDA" if torch.version.cuda is None else "torch finds no driver"
        return failure(
            "gpus",
            f"none: {why}",
            "install a CUDA build of torch and the driver, or choose --device cpu or sim",
        )
    properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    found = ", ".join(f"{each.name} ({size(each.total_memory)})" for each in properties)
    if len(properties) < tp:
        return failure("gpus", found, f"--tp {tp} needs {tp} GPUs on this machine: lower it")
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        return warning("gpus", f"{found}; without bfloat16", "choose --dtype float32")
    return ok("gpus", found)


def _nccl(tp: int) -> Finding:
    if not (dist.is_available() and dist.is_nccl_available()):
        found = "this torch has none"
        if tp > 1:
            return failure("nccl", found, "install a build of torch with NCCL: ranks on GPUs need it")
        return note("nccl", f"{found}; one rank needs none")
    return ok("nccl", ".".join(map(str, torch.cuda.nccl.version())))


def _gloo(tp: int, *, needed: bool) -> Finding:
    if dist.is_available() and dist.is_gloo_available():
        return ok("gloo", "available")
    if needed and tp > 1:
        return failure(
            "gloo",
            "this torch has none",
            "install a build of torch with gloo: ranks on CPUs need it",
        )
    return note("gloo", "this torch has none; it is not needed here")
