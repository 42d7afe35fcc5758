"""A workload: which requests arrive when. ``workloads/`` makes them.

The simulation and ``albireo bench serve`` run the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Sampling = Literal["greedy", "drawn", "penalized"]
"""Temperature 0; a temperature with top-k and top-p; the same with penalties."""

SAMPLING_OPTIONS: Mapping[Sampling, Mapping[str, Any]] = {
    "greedy": {"temperature": 0.0, "repetition_penalty": 1.0},
    "drawn": {"temperature": 0.8, "top_k": 50, "top_p": 0.95, "repetition_penalty": 1.0},
    "penalized": {
        "temperature": 0.8,
        "top_k": 50,
        "top_p": 0.95,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
    },
}
"""Fields of ``SamplingOptions``. Each has a repetition penalty, since a checkpoint may have a default."""


MAX_REQUESTS = 1_000_000
"""Of one workload: they are all in memory, about 700 bytes each."""


@dataclass(frozen=True, slots=True)
class WorkloadRequest:
    """One request. Lengths are in tokens.

    The prompt of a later turn begins with the prompt of the turn before and its answer.
    """

    at: float  # seconds from the begin of the run; 0 in a closed loop
    prompt: int
    outputs: int  # exactly so many: end tokens are ignored
    prefix: str = ""  # requests with the same one share the first ``prefix_tokens`` of their prompts
    prefix_tokens: int = 0
    after: int | None = None  # a later turn of a conversation: the turn before, by its index in the workload
    think: float = 0.0  # seconds from that turn's end until this one is sent


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests in the order in which they are sent; later turns of conversations go by their think times.

    A closed loop counts conversations: one is over when its last turn has ended.
    """

    name: str  # how it was asked for, in one line
    requests: tuple[WorkloadRequest, ...]
    concurrency: int = 0  # closed loop: so many at a time, whenever they arrive; 0: open loop, by ``at``
    sampling: Sampling = "greedy"
    seed: int = 0

    @property
    def longest(self) -> int:
        """Most tokens of one request, prompt and output."""
        return max((request.prompt + request.outputs for request in self.requests), default=0)

    @property
    def first_turns(self) -> list[int]:
        """Indexes of the requests that continue no other."""
        return [index for index, request in enumerate(self.requests) if request.after is None]

    @property
    def next_turns(self) -> dict[int, int]:
        """Index of the turn after, by that of the turn before."""
        return {request.after: i for i, request in enumerate(self.requests) if request.after is not None}

    def own_tokens(self, index: int) -> int:
        """Of a prompt: those that are not of the turns before. Raises ValueError where there are none."""
        request = self.requests[index]
        if request.after is None:
            return request.prompt
        if not 0 <= request.after < index:
            raise ValueError(f"request {index + 1} continues one that is not before it")
        before = self.requests[request.after]
        own = request.prompt - before.prompt - before.outputs
        if own < 1:
            raise ValueError(
                f"request {index + 1}: a prompt of {request.prompt} tokens adds nothing to the turn before, "
                f"which had {before.prompt} and brought {before.outputs}"
            )
        return own
