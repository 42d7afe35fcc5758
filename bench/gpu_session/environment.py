"""What a GPU machine is: its devices, its driver, and the versions of what computes on them.

python -m bench.gpu_session.environment RESULT
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import Annotated

import torch
import typer

from bench.machine import machine

QUERIES = {
    "GPU": "name",
    "GPU memory": "memory.total",
    "driver": "driver_version",
    "power limit": "power.limit",
    "most SM clock": "clocks.max.sm",
    "most memory clock": "clocks.max.mem",
}
"""What ``nvidia-smi`` calls it."""
PACKAGES = ("torch", "triton", "numpy", "transformers", "grpcio", "protobuf", "redis")


def environment() -> dict[str, str]:
    """By name, as text; what is not there says so."""
    return {**_gpus(), "machine": machine(), "kernel": platform.release(), **_versions()}


def _gpus() -> dict[str, str]:
    """Of several GPUs, all in one text."""
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERIES.values())}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return {"GPU": "none: nvidia-smi does not answer"}
    rows = [line.split(", ") for line in done.stdout.splitlines()]
    return {name: ", ".join(column) for name, column in zip(QUERIES, zip(*rows, strict=True), strict=False)}


def _versions() -> dict[str, str]:
    found = {name: _version(name) for name in PACKAGES}
    found["CUDA of torch"] = torch.version.cuda or "none"
    if torch.cuda.is_available():
        found["cuDNN"] = str(torch.backends.cudnn.version())
        if torch.distributed.is_nccl_available():
            found["NCCL"] = ".".join(map(str, torch.cuda.nccl.version()))
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def main(result: Annotated[Path, typer.Argument(help="JSON file to write.")]) -> None:
    """Writes what the machine is."""
    result.write_text(json.dumps(environment(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
