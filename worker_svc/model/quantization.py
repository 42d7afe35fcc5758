"""What ``config.json`` says of quantized weights.

Served is W8A8 as compressed-tensors writes it: linear layers in int8 with a scale for each output, and inputs
that are quantized row by row while the model runs. Everything else is refused. The model's configuration
calls it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker_svc.model.fields import Fields

NAMES = ("quantization_config", "compression_config")
"""Of the field, today and in older checkpoints."""
WEIGHTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
INPUTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
NOTHING: tuple[Any, ...] = (None, {}, [], "dense")
"""Values of a field that asks for nothing."""


def has_int8_weights(config: Fields) -> bool:
    """Raises CheckpointError for what is not served."""
    found = [given for name in NAMES if (given := config.fields(name)) is not None]
    for given in found:
        _check(given)
    return bool(found)


def _check(found: Fields) -> None:
    _expect(found, {"quant_method": "compressed-tensors", "format": "int-quantized"})
    for name in ("kv_cache_scheme", "transform_config"):
        if found.raw(name) not in NOTHING:
            raise found.wrong(name, "not supported")
    sparsity = found.fields("sparsity_config")
    if sparsity is not None and sparsity.raw("format") not in NOTHING:
        raise sparsity.wrong("format", f"{sparsity.raw('format')!r}; sparse weights are not supported")
    groups = found.fields("config_groups")
    if groups is None:
        raise found.wrong("config_groups", "missing")
    for name in groups:
        group = groups.fields(name)
        if group is None:
            raise groups.wrong(name, "missing")
        for part, expected in (("weights", WEIGHTS), ("input_activations", INPUTS)):
            given = group.fields(part)
            if given is None:
                raise group.wrong(part, "missing")
            _expect(given, expected)
        if group.raw("output_activations") not in NOTHING:
            raise group.wrong("output_activations", "not supported")


def _expect(fields: Fields, expected: Mapping[str, Any]) -> None:
    for name, value in expected.items():
        if fields.raw(name) != value:
            raise fields.wrong(name, f"{fields.raw(name)!r}; of quantized checkpoints supported: {value!r}")
