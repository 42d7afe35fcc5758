"""What ``config.json`` says of quantized weights.

Served is W8A8 as compressed-tensors writes it: linear layers in int8 or in FP8 (E4M3) with scales, and inputs
that are quantized row by row while the model runs. Everything else is refused. The model's configuration
calls it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from worker_svc.model.fields import Fields
from worker_svc.model.formats import WeightFormat

NAMES = ("quantization_config", "compression_config")
"""Of the field, today and in older checkpoints."""
NOTHING: tuple[Any, ...] = (None, {}, [], "dense")
"""Values of a field that asks for nothing."""


class _Scheme(NamedTuple):
    """How the numbers of a checkpoint are quantized."""

    stored: WeightFormat
    numbers: str  # their ``type``
    strategies: tuple[str, ...]
    """Of weights: for what there is a scale."""

    def weights(self) -> dict[str, tuple[Any, ...]]:
        """Values that are served, of each field."""
        return self._numbers() | {"strategy": self.strategies, "dynamic": (False,)}

    def inputs(self) -> dict[str, tuple[Any, ...]]:
        return self._numbers() | {"strategy": ("token",), "dynamic": (True,)}

    def _numbers(self) -> dict[str, tuple[Any, ...]]:
        return {"num_bits": (8,), "type": (self.numbers,), "symmetric": (True,)}


SCHEMES = {
    "int-quantized": _Scheme("int8", "int", ("channel",)),
    "float-quantized": _Scheme("fp8", "float", ("channel", "tensor")),
}
"""By the ``format`` of a checkpoint."""


def stored_format(config: Fields) -> WeightFormat:
    """Of the weights of linear layers in the files. Raises CheckpointError for what is not served."""
    stored: WeightFormat = "dtype"
    for name in NAMES:
        if config.raw(name) is not None:
            stored = _check(config.fields(name) or Fields({}, f"{config.where}: {name}")).stored
    return stored


def _check(found: Fields) -> _Scheme:
    _expect(found, {"quant_method": ("compressed-tensors",), "format": tuple(SCHEMES)})
    for name in ("kv_cache_scheme", "transform_config"):
        if found.raw(name) not in NOTHING:
            raise found.wrong(name, "not supported")
    sparsity = found.fields("sparsity_config")
    if sparsity is not None and sparsity.raw("format") not in NOTHING:
        raise sparsity.wrong("format", f"{sparsity.raw('format')!r}; sparse weights are not supported")
    groups = found.fields("config_groups")
    if groups is None:
        raise found.wrong("config_groups", "missing")
    scheme = SCHEMES[found.raw("format")]
    for name in groups:
        group = groups.fields(name)
        if group is None:
            raise groups.wrong(name, "missing")
        for part, expected in (("weights", scheme.weights()), ("input_activations", scheme.inputs())):
            given = group.fields(part)
            if given is None:
                raise group.wrong(part, "missing")
            _expect(given, expected)
        if group.raw("output_activations") not in NOTHING:
            raise group.wrong("output_activations", "not supported")
    return scheme


def _expect(fields: Fields, expected: Mapping[str, tuple[Any, ...]]) -> None:
    """Raises CheckpointError for a value of a field that is not among those that are served."""
    for name, values in expected.items():
        if (given := fields.raw(name)) not in values:
            served = ", ".join(map(repr, values))
            raise fields.wrong(name, f"{given!r}; of quantized checkpoints supported: {served}")
