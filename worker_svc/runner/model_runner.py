"""The runner of a model on one rank: it prepares steps (input stage), executes them (compute stage) and
fetches what they sampled (output stage)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from albireo.contract.plan import BLOCK_SIZE, GroupShape, Plan
from albireo.contract.tiers import most_blocks
from albireo.runtime.kv_memory import KvMemory
from worker_svc.batch.slot_table import HostBatch, SlotTable, TableMismatch
from worker_svc.batch.staging import Staging, StepBatch
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.cost.speed import StepSpeed
from worker_svc.kv_tiers.interface import Tier
from worker_svc.kv_tiers.layout import KvLayout, checkpoint_identity
from worker_svc.kv_tiers.step_transfers import StepTransfers
from worker_svc.kv_tiers.transfers import KvTransfers
from worker_svc.model.config import ModelConfig
from worker_svc.model.formats import AS_THE_MODEL, Formats
from worker_svc.model.kv_cache import allocate, kv_dtype
from worker_svc.model.loader import Loader
from worker_svc.model.weight_reader import WeightReader, Weights
from worker_svc.runner.agreement import agree_on_blocks, agree_on_graphs, missing_by_rank, slowest
from worker_svc.runner.device_output import DeviceOutput
from worker_svc.runner.gpu_memory import free_memory, most_allocated
from worker_svc.runner.interface import HostOutput
from worker_svc.runner.kv_sizing import CPU_SHARE, Sizing
from worker_svc.runner.main_memory import UNKNOWN_MEMORY, available_memory
from worker_svc.runner.profile_steps import profile_plans
from worker_svc.runner.span_forward import SpanForward
from worker_svc.runner.start_speed import measure_speed
from worker_svc.runner.tier_opening import TierOptions, begin_transfers, open_tiers
from worker_svc.runner.tier_output import TierOutput
from worker_svc.runner.timestamps import CudaClock, HostTimestamps
from worker_svc.sampling.layout import SamplingMode, SamplingPolicy
from worker_svc.sampling.penalties import PenaltyState
from worker_svc.sampling.prompt_logprobs import prompt_words
from worker_svc.sampling.step_sampler import StepSampler

if TYPE_CHECKING:
    from worker_svc.runner.graphs import StepGraphs


class ModelRunner:
    """One rank's model, KV cache and slot table; see :class:`worker_svc.runner.interface.Runner`."""

    transfers: KvTransfers | None = None  # without KV tiers

    def __init__(
        self,
        directory: Path,
        group: TPGroup,
        *,
        device: torch.device,
        dtype: torch.dtype,
        kv_memory: KvMemory,
        max_seqs: int,
        max_model_len: int,
        gpu_memory_share: float = 0.9,
        local_ranks: int = 1,
        synchronous: bool = False,
        cuda_graphs: bool = True,
        sampling: SamplingMode = "auto",
        tiers: TierOptions | Callable[[KvLayout], Sequence[Tier]] | None = None,
        formats: Formats = AS_THE_MODEL,
        weights: Weights | None = None,
    ) -> None:
        """Raises CheckpointError. All ranks take the number of KV blocks that each of them has room for.

        ``kv_memory``: for these blocks on this rank; a share and auto are of what the weights leave free,
        on a CPU divided among ``local_ranks``. ``gpu_memory_share``: of a GPU, what auto may fill in all.
        ``synchronous``: the ids of decoding rows come from the host, by ``feed_back``. ``cuda_graphs``: where
        attention can, decode steps run as graphs, in addition to an explicit size of ``kv_memory``.
        ``sampling``: how ranks share it; synchronous, rank 0 does all of it. ``tiers``: the KV tiers below
        the blocks, or what opens them; the same on every rank, closed with the runner. ``weights``: None for
        those of ``directory``.
        """
        self.config = ModelConfig.from_dir(directory)
        self.config.check_tp(group.size)
        self.device, self._group, self._synchronous = device, group, synchronous
        self._dtype, self._kv_dtype = dtype, kv_dtype(formats, dtype)
        self._policy = SamplingPolicy("driver" if synchronous else sampling, group.rank, group.size)
        self._clock = CudaClock(device) if device.type == "cuda" else None
        longest = min(max_model_len, self.config.max_positions)
        weights = weights or WeightReader(directory, dtype)
        self._model = Loader(self.config, weights, group, device, dtype, longest, formats).load()
        self._cuda_graphs = cuda_graphs and agree_on_graphs(self._model.attention.paged.ragged, group, device)
        sizing = Sizing(self.config, group.size, self._kv_dtype, max_seqs, longest)
        num_blocks = self._num_blocks(kv_memory, sizing, gpu_memory_share, local_ranks)
        opened: Sequence[Tier] = ()
        if tiers is not None:
            layout = self._layout(directory, formats)
            opened = open_tiers(tiers, layout, group, device, local_ranks)
        shape = self._shape(num_blocks, max_seqs, self._longest(longest, num_blocks, opened))
        self._arrange(shape, cuda_graphs=self._cuda_graphs)
        self.kv_bytes = sizing.bytes_of(num_blocks)
        if opened:
            self._begin_transfers(opened, layout)

    def _layout(self, directory: Path, formats: Formats) -> KvLayout:
        identity, group = checkpoint_identity(directory), self._group
        identity += formats.mark(self._dtype)
        return KvLayout.of(self.config, self._kv_dtype, identity, tp=group.size, rank=group.rank)

    def _longest(self, wanted: int, num_blocks: int, tiers: Sequence[Tier]) -> int:
        """Tokens of a context: what the device does not hold of one is streamed from the tiers."""
        most = most_blocks(num_blocks, (tier.frames for tier in tiers))
        return min(wanted, agree_on_blocks(most, self._group, self.device) * BLOCK_SIZE)

    def _shape(self, num_blocks: int, max_seqs: int, max_model_len: int) -> GroupShape:
        return GroupShape(num_blocks, max_seqs, max_model_len, num_layers=self.config.num_layers)

    def _num_blocks(
        self, kv_memory: KvMemory, sizing: Sizing, gpu_memory_share: float, local_ranks: int
    ) -> int:
        """The same on every rank; none allocates before all have looked at what is free."""
        if self.device.type == "cpu":
            self._group.barrier()  # all have loaded
            free = (available_memory() or UNKNOWN_MEMORY) // local_ranks
            own = sizing.blocks(kv_memory, free, CPU_SHARE)
        elif kv_memory.size is None:
            free, total = self._free_on_gpu(sizing)
            own = sizing.blocks(kv_memory, free, 1.0, kept=int((1 - gpu_memory_share) * total))
        else:
            own = sizing.blocks(kv_memory, kv_memory.size, 1.0)  # the allocation fails if it is too much
        return agree_on_blocks(own, self._group, self.device)

    @torch.inference_mode()
    def _free_on_gpu(self, sizing: Sizing) -> tuple[int, int]:
        """Bytes that the weights, the largest steps and CUDA graphs leave free, and all bytes of the GPU."""
        free, total = torch.cuda.mem_get_info(self.device)
        shape = self._shape(1, sizing.max_seqs, sizing.max_model_len)
        self._arrange(shape, cuda_graphs=False)
        # A context that all of it cannot hold is streamed: no step gathers it.
        most = agree_on_blocks(max(1, free // sizing.bytes_of(1)), self._group, self.device) * BLOCK_SIZE
        plans = profile_plans(sizing.max_seqs, min(most, sizing.max_model_len))
        steps = most_allocated(self._run(plans), self.device)
        self._arrange(shape, cuda_graphs=False)  # forgets what the steps have kept
        before = free_memory(self.device)
        self._arrange(shape, cuda_graphs=self._cuda_graphs)
        graphs = before - free_memory(self.device)
        self._arrange(shape, cuda_graphs=False)
        return max(0, free_memory(self.device) - steps - graphs), total

    def _run(self, plans: Iterable[Plan]) -> Iterator[HostOutput]:
        for plan in plans:
            yield self.execute(self.prepare(plan)).to_host()

    def _arrange(self, shape: GroupShape, *, cuda_graphs: bool) -> None:
        """All that has the group's shape: cache, tables, buffers, graphs."""
        self.shape = shape
        slots, longest, device, dtype = shape.max_seqs, shape.max_model_len, self.device, self._dtype
        # Two blocks beyond the last: one pads block tables and is never written, one takes what the padding
        # rows of a graph write and is never read. The slot beyond the last is where those find a token.
        self._cache = allocate(shape.num_blocks + 2, self.config, self._group.size, self._kv_dtype, device)
        self._last_token = torch.zeros(slots + 1, dtype=torch.int64, device=device)
        self._no_words = torch.zeros(0, 1, dtype=torch.int64, device=device)
        self._host_last_token = np.zeros(slots + 1, dtype=np.int64) if self._synchronous else None
        config, paged = self.config, self._model.attention.paged
        self._table = SlotTable(
            shape, config.vocab_size, config.eos_ids, self._group.size, ragged_tables=paged.ragged
        )
        # One column more: the rows of a request that has reached its length may run once again.
        state = PenaltyState(self._policy.state_rows(slots), longest + 1, device)
        self._spans = SpanForward(self._model, self._last_token)
        self._graphs: StepGraphs | None = None
        if cuda_graphs:
            from worker_svc.runner.graphs import StepGraphs  # needed on CUDA only

            self._graphs = StepGraphs(
                self._model, self._cache, self._last_token, shape, self._group, self._policy
            )
        draws = None if self._graphs is None else self._graphs.draws
        rows = () if draws is None else draws.rows
        self._staging = Staging(device, dtype, longest, self._policy, masked=paged.masked, graph_rows=rows)
        self._sampler = StepSampler(self._group, self.config.vocab_size, state, draws)

    def _begin_transfers(self, tiers: Sequence[Tier], layout: KvLayout) -> None:
        blocks = self.shape.num_blocks
        self.transfers, shapes = begin_transfers(tiers, layout, self._cache, blocks, self._group)
        self.shape = replace(self.shape, tiers=shapes)

    @property
    def kernels(self) -> str:
        """Which ones it runs, for people."""
        graphs = 0 if self._graphs is None else len(self._graphs)
        model = self._model
        return f"{type(model.kernels).__name__}, {model.attention.paged.name}, {graphs} CUDA graphs"

    @property
    def staging_wait(self) -> float:
        return self._staging.waited

    def measure(self) -> StepSpeed:
        return measure_speed(self, lambda seconds: slowest(seconds, self._group, self.device))

    def reset(self) -> None:
        self._table.reset()
        if self.transfers is not None:
            self.transfers.reset()

    @property
    def tier_failures(self) -> dict[tuple[str, str], int]:
        return {} if self.transfers is None else self.transfers.failures

    def close(self) -> None:
        if self.transfers is not None:
            self.transfers.close()

    @torch.inference_mode()
    def prepare(self, plan: Plan) -> StepBatch:
        batch = self._table.apply(plan)
        if self.transfers is None:
            if plan.offloads:
                raise TableMismatch(f"step {plan.step}: there are no KV tiers to stream from")
            return self._stage(batch)
        transfers = self.transfers.begin(plan, self._table.incarnations, batch.spans)
        staged = self._stage(batch)
        return staged if transfers is None else replace(staged, transfers=transfers)

    def _stage(self, batch: HostBatch) -> StepBatch:
        padded = None if self._graphs is None else self._graphs.pad(batch)
        batch = padded or batch
        ids = None
        if self._host_last_token is not None:
            ids = self._host_last_token[batch.forward.decode_slots]
        return self._staging.to_device(batch, ids, padded=padded is not None)

    def feed_back(self, output: HostOutput) -> None:
        if self._host_last_token is None:
            raise RuntimeError("ids come from the device: this runner is not synchronous")
        self._host_last_token[output.slots] = np.maximum(output.ids, 0)

    @torch.inference_mode()
    def execute(self, batch: StepBatch) -> DeviceOutput:
        timestamps = HostTimestamps() if self._clock is None else self._clock.timestamps()
        words, prompts, step, transfers = self._no_words, None, batch.input, batch.transfers
        batch.await_copies()
        if transfers is not None:
            transfers.start()
        timestamps.record()
        if len(step.fresh):
            self._cache.clear(step.fresh)
        logits = None
        if len(step.forward.positions) or step.forward.spans:
            logits, prompts = self._forward(batch)
        timestamps.record()
        self._sampler.begin(step.sampling)
        if logits is not None and len(step.sample_slots):
            words = self._sampler(logits, step.sampling, batch.layout, batch.draw_words)
            self._last_token.index_copy_(0, step.sample_slots, words[:, 0].clamp(min=0))
        timestamps.record()
        batch.buffer.release()
        tiers = None if self.transfers is None else self._tier_output(self.transfers, transfers)
        return DeviceOutput(batch.host, words, prompts, timestamps, tiers)

    def _tier_output(self, transfers: KvTransfers, step: StepTransfers | None) -> TierOutput:
        missing = None
        if step is not None and step.readers:
            missing = missing_by_rank(step.missing(), self._group, self.device)
        return TierOutput(transfers.record, step, missing)

    def _forward(self, batch: StepBatch) -> tuple[Tensor, Tensor | None]:
        """Logits of the rows that sample, and the log-probabilities of prompts as ``prompt_words`` has them.

        Decoding rows take the token that the last step left on the device; synchronous ones brought it.
        """
        step, forward = batch.input, batch.input.forward
        if step.decode_ids is not None:
            self._last_token.index_copy_(0, forward.decode_slots, step.decode_ids)
        if self._graphs is not None and batch.forward_words is not None:
            hidden = self._graphs.decodes.run(len(forward.decode_slots), batch.forward_words)
            return self._model.logits(hidden, step.sample_rows), None
        transfers, layers = batch.transfers, self._cache.layers
        caches = layers if transfers is None else transfers.caches(layers)
        ids = torch.cat([self._last_token.index_select(0, forward.decode_slots), forward.chunk_ids])
        rows = ids, forward.positions, forward.kv_rows, batch.attention
        if transfers is None or transfers.streams is None:
            hidden = self._model.hidden(*rows, caches, batch.ends)
        else:
            hidden = self._spans(rows, forward.spans, transfers.streams.spans, caches)
        prompts = None
        if step.prompts is not None:
            prompts = prompt_words(
                lambda rows: self._model.logits(hidden, rows),
                step.prompts,
                self.config.vocab_size,
                self._group,
            )
        return self._model.logits(hidden, step.sample_rows), prompts
