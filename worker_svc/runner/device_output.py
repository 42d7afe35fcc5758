"""What a step brought, on its way from the device to the host.

The compute stage makes it, the output stage waits for it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from worker_svc.batch.slot_table import HostBatch
from worker_svc.runner.interface import HostOutput
from worker_svc.runner.tier_output import TierOutput
from worker_svc.runner.timestamps import Timestamps
from worker_svc.sampling.logprobs import to_messages
from worker_svc.sampling.prompt_logprobs import prompt_messages


class DeviceOutput:
    """What a step sampled, on its way to the host. Holds what the copies read until they are done."""

    def __init__(
        self,
        host: HostBatch,
        words: Tensor,
        prompt_words: Tensor | None,
        timestamps: Timestamps,
        tiers: TierOutput | None = None,
    ) -> None:
        """``words``: see :class:`StepSampler`; ``prompt_words``: see :func:`prompt_words`. ``tiers``: None
        where there are none."""
        self._host = host
        self._timestamps = timestamps
        self._tiers = tiers
        self._prompted = prompt_words is not None
        self._found = [words] if prompt_words is None else [words, prompt_words]
        if tiers is not None and tiers.missing is not None:
            self._found.append(tiers.missing)
        self._on_host = self._found
        self._done: torch.cuda.Event | None = None
        if words.is_cuda:
            # All in the step's own order, so that fetching them does not wait for the steps behind it.
            self._on_host = [_start_copy(tensor) if tensor.is_cuda else tensor for tensor in self._found]
            self._done = torch.cuda.Event()
            self._done.record(torch.cuda.current_stream(words.device))

    def to_host(self) -> HostOutput:
        """Waits for the step, where it runs on its own. Called once."""
        if self._done is not None:
            self._done.synchronize()
        samples = self._host.samples
        words, *others = (tensor.numpy() for tensor in self._on_host)
        entries = np.flatnonzero(samples.logprobs >= 0) if words.shape[1] > 1 else np.zeros(0, dtype=np.int64)
        messages = to_messages(words[entries, 1:], samples.logprobs[entries].tolist()) if len(entries) else []
        return HostOutput(
            slots=samples.slots,
            incarnations=samples.incarnations,
            ids=words[:, 0],
            logprobs=dict(zip(entries.tolist(), messages, strict=True)),
            prompt_logprobs=prompt_messages(self._host.prompts, others[0]) if self._prompted else {},
            tiers=None if self._tiers is None else self._tiers.report(others[-1] if others else None),
        )

    def timestamps(self) -> list[int]:
        return self._timestamps.nanoseconds()


def _start_copy(tensor: Tensor) -> Tensor:
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
