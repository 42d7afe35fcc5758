"""The sampler's input by the way that it takes in a worker, and transformers' controls as the measure.

Imported by every rank: transformers, whose import takes seconds, is loaded where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from albireo.contract.plan import Admission, Chunk, Grant, GroupShape, Plan, SamplingParams, blocks_for
from worker_svc.batch.slot_table import SlotTable
from worker_svc.batch.staging import Staging
from worker_svc.buffers.buckets import bucket_sizes
from worker_svc.buffers.graph_memory import GraphMemory
from worker_svc.buffers.scratch import ScratchBuffer
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.sampling.cut import UNIT
from worker_svc.sampling.draw import _softmax, bounded, narrow, whole
from worker_svc.sampling.draw_graphs import DrawGraphs
from worker_svc.sampling.inputs import Draws, SamplingInput
from worker_svc.sampling.layout import SampleLayout, SamplingMode, SamplingPolicy
from worker_svc.sampling.penalties import PenaltyState
from worker_svc.sampling.sampler import _edit
from worker_svc.sampling.step_sampler import StepSampler
from worker_svc.sampling.tiles import tile_maxima

CPU = torch.device("cpu")
MAX_LEN = 64
DRAWN = SamplingParams(max_tokens=100, seed=0)
GREEDY = replace(DRAWN, temperature=0.0)
MIXED = [
    GREEDY,
    replace(DRAWN, seed=1, logprobs=2),
    replace(DRAWN, seed=2, top_k=1),
    replace(DRAWN, seed=3, top_k=50, top_p=0.95, temperature=0.8, logprobs=0),
    replace(DRAWN, seed=4, top_k=256, min_p=0.01, typical_p=0.9, presence_penalty=0.7),
    replace(DRAWN, seed=5, top_p=0.9, frequency_penalty=0.4),
    replace(DRAWN, seed=6, min_p=0.1, bad_ids=(1, 2)),
    replace(DRAWN, seed=7, typical_p=0.8, logprobs=4),
    replace(DRAWN, seed=8, top_k=300, top_p=0.5, logit_bias=((3, 4.0),)),
    replace(DRAWN, seed=9, top_k=20, allowed_ids=tuple(range(0, 60, 7)), repetition_penalty=1.5),
]
"""A request for each way to draw, and of each control."""


@dataclass(frozen=True)
class Row:
    """A request that samples: what it asks for, its prompt, and its outputs before a preemption."""

    sampling: SamplingParams
    prompt: tuple[int, ...] = (1,)
    outputs: tuple[int, ...] = ()


class Bench:
    """Requests in their slots, a step at a time, without a model: one rank of a group."""

    def __init__(
        self,
        vocabulary: int,
        *,
        slots: int = 16,
        eos_ids: frozenset[int] = frozenset(),
        group: TPGroup | None = None,
        mode: SamplingMode = "auto",
        on_cpu: bool = True,
        native: bool = True,
        device: torch.device = CPU,
        graphs: bool = False,
    ) -> None:
        """Without ``on_cpu`` rows are drawn as on CUDA: nothing waits for the device. Without ``native`` the
        native kernel draws none. With ``graphs`` they
        are staged for CUDA graphs, which are there on CUDA."""
        group = group or TPGroup()
        policy = SamplingPolicy(mode, group.rank, group.size)
        self._group = group
        self._device = device
        self._blocks = blocks_for(MAX_LEN)
        self._table = SlotTable(
            GroupShape(slots * self._blocks, slots, MAX_LEN), vocabulary, eos_ids, group.size
        )
        most = policy.most_rows(slots)
        rows = bucket_sizes(most) if graphs else ()
        self._staging = Staging(device, torch.float32, MAX_LEN, policy, graph_rows=rows)
        self._staging._sampling._narrow &= on_cpu
        self._staging._sampling._native &= on_cpu and native
        self.state = PenaltyState(policy.state_rows(slots), MAX_LEN, device)
        self.graphs: DrawGraphs | None = None
        if graphs and device.type == "cuda":
            columns = -(-vocabulary // group.size) * group.size
            self.graphs = DrawGraphs(GraphMemory(device), vocabulary, columns, most)
        self.sampler = StepSampler(group, vocabulary, self.state, self.graphs)
        self._step = 0

    def admit(self, rows: dict[int, Row], released: Sequence[int] = (), decodes: int = 0) -> Staged:
        """A step that admits and prefills some, in addition to ``decodes`` others."""
        self._step += 1
        plan = Plan(
            1,
            self._step,
            released=tuple(released),
            admissions=tuple(
                Admission(
                    slot,
                    self._step,
                    f"{slot}",
                    (*row.prompt, *row.outputs),
                    len(row.outputs),
                    0,
                    row.sampling,
                )
                for slot, row in rows.items()
            ),
            grants=tuple(
                Grant(slot, tuple(range(slot * self._blocks, (slot + 1) * self._blocks))) for slot in rows
            ),
            chunks=tuple(Chunk(slot, 0, len(row.prompt) + len(row.outputs)) for slot, row in rows.items()),
            num_decodes=decodes,
        )
        return self._stage(plan)

    def decode(self, count: int) -> Staged:
        """A step in which everyone decodes."""
        self._step += 1
        return self._stage(Plan(1, self._step, num_decodes=count))

    def _stage(self, plan: Plan) -> Staged:
        batch = self._staging.to_device(self._table.apply(plan))
        batch.await_copies()
        self.sampler.begin(batch.input.sampling)
        slots = batch.host.samples.slots.tolist()
        return Staged(self, batch.input.sampling, batch.layout, slots, batch.draw_words)

    def local(self, logits: Tensor) -> Tensor:
        """This rank's columns, padded as a model's are."""
        width = -(-logits.shape[1] // self._group.size)
        padded = torch.nn.functional.pad(logits, (0, width * self._group.size - logits.shape[1]), value=9e9)
        return padded[:, self._group.rank * width :][:, :width].clone().to(self._device)


@dataclass(frozen=True)
class Staged:
    """A step about to sample."""

    bench: Bench
    params: SamplingInput[Tensor]
    layout: SampleLayout
    slots: list[int]  # of the rows, in their order
    graph_words: Tensor | None

    def words(self, logits: dict[int, Tensor] | Tensor) -> Tensor:
        """``logits``: a row for each slot, or one for all."""
        rows = [logits if isinstance(logits, Tensor) else logits[slot] for slot in self.slots]
        return self.bench.sampler(
            self.bench.local(torch.stack(rows)), self.params, self.layout, self.graph_words
        )

    def ids(self, logits: dict[int, Tensor] | Tensor) -> dict[int, int]:
        """By slot."""
        return dict(zip(self.slots, self.words(logits)[:, 0].tolist(), strict=True))


def logits_of(rows: int, vocabulary: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * scale


def staged(
    requests: Sequence[SamplingParams],
    vocabulary: int,
    eos_ids: frozenset[int] = frozenset(),
    *,
    on_cpu: bool = True,
    device: torch.device = CPU,
) -> Staged:
    """One first token of each request."""
    bench = Bench(vocabulary, slots=len(requests), eos_ids=eos_ids, on_cpu=on_cpu, device=device)
    return bench.admit({slot: Row(sampling) for slot, sampling in enumerate(requests)})


def draw(logits: Tensor, requests: Sequence[SamplingParams]) -> list[int]:
    """The first token of each request."""
    step = staged(requests, logits.shape[1])
    return step.bench.sampler(logits.clone(), step.params, step.layout)[:, 0].tolist()


def weights(
    logits: Tensor, row: Row, *, on_cpu: bool = True, eos_ids: frozenset[int] = frozenset()
) -> Tensor:
    """What the controls leave of one row of logits, as probabilities by id (fp64)."""
    bench = Bench(len(logits), slots=1, eos_ids=eos_ids, on_cpu=on_cpu, native=False)
    params = bench.admit({0: row}).params
    edited = logits[None].clone()
    _edit(edited, params, bench.state)
    if params.plain is not None:
        [(_, _, chances)] = _softmax(edited, params.plain, ScratchBuffer())
        return chances[0].double() / chances.double().sum()
    draws = params.narrow or params.bounded or params.wide
    assert draws is not None
    mass = whole_mass(edited, draws)
    # By the largest logits, where they are enough, it must be the same to the last bit.
    if params.bounded is not None:
        assert torch.equal(bounded_mass(edited, draws), mass)
    if params.narrow is not None:
        few = narrow(edited, tile_maxima(edited), draws, ScratchBuffer())
        if bool(few.enough.all()):
            assert torch.equal(torch.zeros_like(mass).scatter_(1, few.ids, few.mass), mass)
    return mass[0].double() / mass.sum()


def bounded_mass(logits: Tensor, draws: Draws[Tensor]) -> Tensor:
    """What the controls leave of each number ``[rows, n]``, by the largest ones."""
    best, mass = bounded(logits, logits.amax(-1, keepdim=True), draws)
    sums = best.tile_sums(mass)
    tiles = [torch.full((len(logits), 1), tile) for tile in range(sums.shape[1])]
    members = torch.stack([best.members(mass, tile) for tile in tiles], dim=1)
    assert torch.equal(members.sum(-1), sums)
    return members.flatten(1)[:, : logits.shape[1]]


def whole_mass(logits: Tensor, draws: Draws[Tensor]) -> Tensor:
    mass = whole(logits, logits.amax(-1, keepdim=True), draws)
    assert mass.max() <= UNIT
    return mass


def expected(
    logits: Tensor, row: Row, *, shift: float = 0.0, eos_ids: frozenset[int] = frozenset()
) -> Tensor:
    """The distribution that transformers would draw from, in fp64; its processors in its own order.

    It has no presence and frequency penalties: those are vLLM's and OpenAI's. ``shift`` moves the controls
    that cut, to find out whether rounding may decide.
    """
    from transformers.generation import logits_process as theirs

    sampling = row.sampling
    scores: Any = logits[None].double()
    ids: Any = torch.tensor([[*row.prompt, *row.outputs]])
    if sampling.logit_bias:
        bias: list[list[list[int] | float]] = [[[token], amount] for token, amount in sampling.logit_bias]
        scores = theirs.SequenceBiasLogitsProcessor(bias)(ids, scores)
    if sampling.repetition_penalty != 1:
        scores = theirs.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(ids, scores)
    counts = torch.bincount(torch.tensor(row.outputs, dtype=torch.int64), minlength=len(logits))
    scores = scores - sampling.frequency_penalty * counts - sampling.presence_penalty * (counts > 0)
    if sampling.bad_ids:
        scores = theirs.NoBadWordsLogitsProcessor([[token] for token in sampling.bad_ids])(ids, scores)
    if len(row.outputs) < sampling.min_tokens:
        ends = sorted({*sampling.stop_ids, *(() if sampling.ignore_eos else eos_ids)})
        if ends:
            scores = theirs.MinNewTokensLengthLogitsProcessor(len(row.prompt), sampling.min_tokens, ends)(
                ids, scores
            )
    if sampling.allowed_ids:
        allow = theirs.PrefixConstrainedLogitsProcessor(lambda batch, sent: list(sampling.allowed_ids), 1)
        scores = allow(ids, scores)
    scores = theirs.TemperatureLogitsWarper(sampling.temperature)(ids, scores)
    if sampling.top_k:
        scores = theirs.TopKLogitsWarper(sampling.top_k)(ids, scores)
    if sampling.top_p < 1:
        scores = theirs.TopPLogitsWarper(sampling.top_p * (1 + shift))(ids, scores)
    if sampling.min_p:
        scores = theirs.MinPLogitsWarper(min(sampling.min_p * (1 + shift), 1.0))(ids, scores)
    if sampling.typical_p < 1:
        scores = theirs.TypicalLogitsWarper(sampling.typical_p * (1 + shift))(ids, scores)
    found: Tensor = scores[0].softmax(-1)
    return found
