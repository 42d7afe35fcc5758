"""The options of a stack that a simulation assumes, and that the commands at the end of a plan set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Serving:
    model: Path
    model_name: str
    max_seqs: int
    max_model_len: int
    max_num_batched_tokens: int
    prefill_chunk: int
    device: Literal["cuda", "cpu"] = "cuda"
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    synchronous: bool = False
    sampling: Literal["auto", "parallel", "driver"] = "auto"

    def scheduler_options(self) -> Mapping[str, int]:
        """Of the simulated scheduler, by the names of its settings."""
        return {
            "max_num_seqs": self.max_seqs,
            "max_num_batched_tokens": self.max_num_batched_tokens,
            "prefill_chunk": self.prefill_chunk,
        }

    def settings(self) -> dict[str, str]:
        """The services' variables, as compose and Kubernetes pass them on as well."""
        options = self.scheduler_options().items()
        found = {f"ALBIREO_SCHEDULER_{name.upper()}": str(value) for name, value in options}
        found["ALBIREO_WORKER_MAX_SEQS"] = str(self.max_seqs)
        found["ALBIREO_WORKER_MAX_MODEL_LEN"] = str(self.max_model_len)
        if self.dtype != "bfloat16":
            found["ALBIREO_WORKER_DTYPE"] = self.dtype
        if self.sampling != "auto":
            found["ALBIREO_WORKER_SAMPLING"] = self.sampling
        if self.synchronous:
            found["ALBIREO_SYNCHRONOUS"] = "true"
        return found
