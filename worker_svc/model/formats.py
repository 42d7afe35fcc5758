"""In which formats a rank keeps its numbers. All ranks of a group keep the same."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

WeightFormat = Literal["dtype", "int8", "fp8"]
KvFormat = Literal["dtype", "int8"]

WEIGHT_DEVICES = {"int8": ("cpu", "cuda"), "fp8": ("cuda",)}
KV_DEVICES = {"int8": ("cpu",)}
"""Where formats of 8 bits can be; the model's type can be everywhere."""


class Formats(NamedTuple):
    """``dtype`` is the model's type; the rest is in it always. The other ones have 8 bits and scales."""

    weights: WeightFormat = "dtype"  # of linear layers
    kv: KvFormat = "dtype"

    def check_device(self, device: str) -> None:
        """Raises ValueError for a format that no ``device`` of this kind has: cpu, cuda or sim."""
        for option, value, devices in (
            ("weights", self.weights, WEIGHT_DEVICES),
            ("kv_dtype", self.kv, KV_DEVICES),
        ):
            if value in devices and device not in devices[value]:
                served = " or ".join(devices[value])
                raise ValueError(f"{option}: {value} is for --device {served}, not for {device}")

    def words(self) -> list[int]:
        """For comparing ranks: a number for each field."""
        return [get_args(WeightFormat).index(self.weights), get_args(KvFormat).index(self.kv)]

    def mark(self, dtype: object) -> str:
        """Behind a checkpoint's identity in KV tiers: other weights make other keys and values, and of KV in
        8 bits a tier does not know the model's ``dtype``."""
        weights = "" if self.weights == "dtype" else f"-{self.weights}"
        return weights + ("" if self.kv == "dtype" else f"-of-{dtype}")


AS_THE_MODEL = Formats()
