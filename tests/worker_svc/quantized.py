"""Makes W8A8 checkpoints of compressed-tensors, and what they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.robustness.served import edit
from worker_svc.kernels.rounding import rounded
from worker_svc.model.weight_files import SINGLE

NUMBERS = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}


def quantization(stored: str, strategy: str = "channel") -> dict[str, Any]:
    """As llm-compressor writes it."""
    numbers = {"num_bits": 8, "type": "int" if stored == "int8" else "float", "symmetric": True}
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized" if stored == "int8" else "float-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": numbers | {"strategy": strategy, "dynamic": False, "group_size": None},
                "input_activations": numbers | {"strategy": "token", "dynamic": True},
                "output_activations": None,
            }
        },
    }


def quantize(
    directory: Path, stored: str = "int8", *, flat_scales: bool = False, strategy: str = "channel"
) -> None:
    """Puts the linear layers of a checkpoint into 8 bits. Scales of FP8 are in bf16, as they mostly are."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in load_file(directory / SINGLE).items():
        if not name.endswith("proj.weight"):
            tensors[name] = tensor
            continue
        numbers, scales = rounded(tensor, NUMBERS[stored])
        if stored == "fp8":
            scales = (scales if strategy == "channel" else scales.amax()).bfloat16()
            numbers = (tensor / scales.float()).clamp(-448, 448).to(NUMBERS[stored])
        tensors[name] = numbers
        tensors[name + "_scale"] = scales.flatten() if flat_scales else scales
    save_file(tensors, directory / SINGLE)
    edit(directory / "config.json", quantization_config=quantization(stored, strategy))


def dequantize(directory: Path) -> None:
    """Makes it what the numbers stand for."""
    tensors = load_file(directory / SINGLE)
    for name in [name for name in tensors if name.endswith("_scale")]:
        scales = tensors.pop(name).float().view(-1, 1)
        tensors[name.removesuffix("_scale")] = tensors[name.removesuffix("_scale")].float() * scales
    save_file(tensors, directory / SINGLE)
    edit(directory / "config.json", "quantization_config")
