"""The simulated device: forward and sampling are timed waits, everything around them is the real system.

Tokens are a hash of (seed, position), so every stream can be checked, and mean nothing: whatever leaves
this rank is labelled as simulated. Each rank waits by its own clock; ranks do not wait for one another.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from albireo.contract.plan import GroupShape, Plan
from albireo.runtime.clock import SYSTEM_CLOCK, Clock
from worker_svc.batch.slot_table import SlotTable
from worker_svc.batch.staging import Staging, StepBatch
from worker_svc.buffers.arrays import Ints
from worker_svc.cost.interface import CostModel
from worker_svc.cost.speed import StepSpeed, speed_of
from worker_svc.cost.tiers import NO_TIERS, DescribedTiers
from worker_svc.model.config import ModelConfig
from worker_svc.model.kv_cache import block_bytes, blocks_in
from worker_svc.runner.interface import HostOutput
from worker_svc.runner.simulated_tiers import SimulatedTiers, StepTransfers
from worker_svc.runner.step_work import step_work
from worker_svc.runner.tier_report import TierReport
from worker_svc.runner.timestamps import HostTimestamps
from worker_svc.sampling.failed import FAILED
from worker_svc.sampling.layout import SamplingMode, SamplingPolicy
from worker_svc.sampling.random_numbers import random_bits
from worker_svc.sampling.rows import SampleRows


def token_ids(samples: SampleRows, vocab_size: int) -> Ints:
    """The token of each row: a hash of its seed and position, moved on past ids that must not be drawn.

    FAILED where nothing is left. Of all other controls a device that has no logits can make nothing.
    """
    bits = random_bits(samples.seeds, samples.positions)
    ids: Ints = (bits % np.uint64(vocab_size)).astype(np.int64)
    for row in {*samples.masked.rows.tolist(), *samples.allowed.rows.tolist()}:
        masked = samples.masked.ids[samples.masked.rows == row]
        allowed = samples.allowed.ids[samples.allowed.rows == row]
        free = np.setdiff1d(allowed if len(allowed) else np.arange(vocab_size), masked)
        if len(free):
            ids[row] = free[np.searchsorted(free, ids[row]) % len(free)]
        else:
            ids[row] = FAILED
    return ids


@dataclass(frozen=True, slots=True)
class SimulatedStep:
    """A step that is to be waited for."""

    batch: StepBatch
    transfers: StepTransfers


class SimulatedOutput:
    """A step that has been waited for."""

    def __init__(
        self,
        samples: SampleRows,
        vocab_size: int,
        timestamps: HostTimestamps,
        tiers: TierReport | None,
    ) -> None:
        self._samples = samples
        self._vocab_size = vocab_size
        self._timestamps = timestamps
        self._tiers = tiers

    def to_host(self) -> HostOutput:
        return HostOutput(
            slots=self._samples.slots,
            incarnations=self._samples.incarnations,
            ids=token_ids(self._samples, self._vocab_size),
            logprobs={},
            tiers=self._tiers,
        )

    def timestamps(self) -> list[int]:
        return self._timestamps.nanoseconds()


class SimulatedRunner:
    """One rank of a device that exists as a cost model; see :class:`worker_svc.runner.interface.Runner`."""

    def __init__(
        self,
        directory: Path,
        cost: CostModel,
        *,
        rank: int,
        kv_memory: int,
        max_seqs: int,
        max_model_len: int,
        sampling: SamplingMode = "auto",
        tiers: DescribedTiers = NO_TIERS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Reads the checkpoint's config, no weights; ``kv_memory``, of the group, is counted, not taken, and
        so is the memory of the tiers."""
        self.config = ModelConfig.from_dir(directory)
        num_blocks = blocks_in(kv_memory, self.config, 1, torch.bfloat16)
        longest = min(max_model_len, tiers.most_tokens(num_blocks))
        self.shape = GroupShape(num_blocks, max_seqs, longest, tiers.shapes, self.config.num_layers)
        self.kv_bytes = num_blocks * block_bytes(self.config, 1, torch.bfloat16) // cost.tp
        self._cost = cost
        self._clock = clock
        self._table = SlotTable(self.shape, self.config.vocab_size, self.config.eos_ids, cost.tp)
        policy = SamplingPolicy(sampling, rank, cost.tp)
        self._staging = Staging(torch.device("cpu"), torch.bfloat16, self.shape.max_model_len, policy)
        self._tiers = SimulatedTiers(tiers)

    @property
    def staging_wait(self) -> float:
        return self._staging.waited

    @property
    def tier_failures(self) -> dict[tuple[str, str], int]:
        return {}

    def measure(self) -> StepSpeed:
        return speed_of(self._cost)

    def reset(self) -> None:
        self._table.reset()
        self._tiers.reset()

    def prepare(self, plan: Plan) -> SimulatedStep:
        batch = self._table.apply(plan)
        transfers = self._tiers.begin(plan, self._clock.time_ns())
        return SimulatedStep(self._staging.to_device(batch), transfers)

    def execute(self, step: SimulatedStep) -> SimulatedOutput:
        batch = step.batch
        timestamps, work = HostTimestamps(self._clock), step_work(batch.host, self.shape.num_layers)
        timestamps.record()
        forward = self._cost.forward_seconds(work) if work.rows else 0.0
        begin = self._clock.time_ns()
        whole = work.whole_rows > 0
        end, tiers = self._tiers.run(step.transfers, begin, round(forward * 1e9), whole=whole)
        if end > begin:
            self._wait((end - begin) / 1e9)
        timestamps.record()
        if work.samples:
            self._wait(self._cost.sampling_seconds(work, parallel=batch.layout.parallel))
        timestamps.record()
        return SimulatedOutput(batch.host.samples, self.config.vocab_size, timestamps, tiers)

    def close(self) -> None:
        """Nothing runs next to the steps."""

    def feed_back(self, output: HostOutput) -> None:
        """The next tokens do not depend on the last ones."""

    def _wait(self, seconds: float) -> None:
        self._clock.sleep_until(self._clock.now() + seconds)
