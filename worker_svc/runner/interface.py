"""The interface of a runner, which is a model on a device or the simulated device. The stages call it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from albireo.contract.plan import GroupShape, Plan
from albireo.v1 import inference_pb2 as api
from worker_svc.buffers.arrays import Ints
from worker_svc.cost.speed import StepSpeed
from worker_svc.runner.tier_report import TierReport

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True)
class HostOutput:
    """What a step sampled: parallel arrays, one entry a row."""

    slots: Ints
    incarnations: Ints
    ids: Ints  # sampling.failed.FAILED for a row that could not be sampled
    logprobs: dict[int, api.TokenLogprobs]  # by entry
    # By incarnation: index of the first prompt token, and the log-probabilities of each from there on.
    prompt_logprobs: dict[int, tuple[int, list[api.TokenLogprobs]]] = field(default_factory=dict)
    tiers: TierReport | None = None  # None: nothing to report, as without tiers


class StepOutput(Protocol):
    """A step that has been launched; its ids may still be under way on the device."""

    def to_host(self) -> HostOutput:
        """Waits until the step is done. Called once."""
        ...

    def timestamps(self) -> list[int]:
        """Begin of the forward, begin and end of sampling: ns of the Unix clock. After ``to_host``."""
        ...


class ServedModel(Protocol):
    """What a rank reads of its model's configuration, apart from the runner itself."""

    @property
    def architecture(self) -> str: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def eos_ids(self) -> frozenset[int]: ...

    @property
    def warnings(self) -> tuple[str, ...]: ...


class Runner(Protocol[Batch]):
    """One rank's model and slot table. ``Batch`` is what the runner makes of a plan; the stages pass it on.

    ``prepare`` and ``reset`` belong to the input stage, ``execute`` to the compute stage; they may run at
    the same time. All ranks prepare and execute the same plans in the same order.
    """

    shape: GroupShape
    kv_bytes: int  # memory of this rank's part of the KV blocks

    @property
    def config(self) -> ServedModel: ...

    @property
    def staging_wait(self) -> float:
        """Seconds that ``prepare`` has waited for a staging buffer so far."""
        ...

    @property
    def tier_failures(self) -> dict[tuple[str, str], int]:
        """Blocks that KV tiers did not take or did not bring so far, by tier and reason. Any thread."""
        ...

    def measure(self) -> StepSpeed:
        """How fast steps are. All ranks call it together, before the first plan."""
        ...

    def reset(self) -> None:
        """Forgets all requests. Steps that were prepared before may still be executed."""
        ...

    def prepare(self, plan: Plan) -> Batch:
        """Applies a plan and stages its step. Raises TableMismatch."""
        ...

    def execute(self, batch: Batch) -> StepOutput:
        """Launches a step: forward, sampling, and the sampled ids to where the next step finds them."""
        ...

    def close(self) -> None:
        """Ends what runs next to the steps. No call may follow."""
        ...

    def feed_back(self, output: HostOutput) -> None:
        """Synchronous mode only: the ids of a step, by way of the host, before the next is prepared."""
        ...
