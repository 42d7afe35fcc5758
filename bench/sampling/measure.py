"""Measures T4: behind ``albireo bench sampling``. Real staging, sampler and collectives; logits made up."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from albireo.contract.plan import Admission, Chunk, Grant, GroupShape, Plan, SamplingParams, blocks_for
from albireo.tools.fastest import run_seconds
from worker_svc.batch.slot_table import SlotTable
from worker_svc.batch.staging import Staging, StepBatch
from worker_svc.buffers.graph_memory import GraphMemory
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.sampling.layout import SamplingMode, SamplingPolicy
from worker_svc.sampling.penalties import PenaltyState
from worker_svc.sampling.step_sampler import StepSampler

PROMPT = 256
"""Tokens of each request before the first that is sampled: penalties look at all of them."""

WARMUP = 3
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
GREEDY = SamplingParams(max_tokens=10_000, seed=0, temperature=0.0)
USUAL = replace(GREEDY, temperature=0.8, top_k=50, top_p=0.95)
PENALIZED = replace(USUAL, repetition_penalty=1.1, presence_penalty=0.3, frequency_penalty=0.2)
CONTROLS = {
    "greedy": GREEDY,
    "temperature": replace(GREEDY, temperature=0.8),
    "top_p": replace(GREEDY, temperature=0.8, top_p=0.95),
    "top_k + top_p": USUAL,
    "+ penalties": PENALIZED,
    "all": replace(
        PENALIZED,
        min_p=0.001,
        typical_p=0.98,
        min_tokens=10_000,
        stop_ids=tuple(range(8)),
        bad_ids=tuple(range(8, 32)),
        logit_bias=tuple((token, 1.0) for token in range(32, 64)),
        logprobs=5,
    ),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One load of the sampler. Logits come from the model in ``dtype``, and are sampled in fp32."""

    controls: str
    batch: int
    vocabulary: int
    dtype: str


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians in seconds, on rank 0."""

    controls: str
    batch: int
    vocabulary: int
    dtype: str
    tp: int
    driver: float
    parallel: float | None  # None for a group of one
    read: float  # to read all logits once, on one rank: what no driver can be faster than
    sort: float  # a plain sampler that sorts, on logits that rank 0 has already


def measure(
    cases: Sequence[Case], *, tp: int, threads: int, rounds: int, device: str = "cpu"
) -> list[Measured]:
    """Runs all cases in a group of ``tp`` processes on the CPU, ``threads`` each, or in one on a GPU.

    Raises ValueError for several ranks on a GPU: their collectives are gloo's.
    """
    if device == "cuda" and tp > 1:
        raise ValueError("on a GPU, one rank alone is measured")
    with tempfile.TemporaryDirectory() as scratch:
        spawn(_rank, args=(tp, tuple(cases), threads, rounds, device, Path(scratch)), nprocs=tp, daemon=True)
        return [Measured(**found) for found in json.loads((Path(scratch) / "found").read_text())]


def _rank(
    rank: int, tp: int, cases: Sequence[Case], threads: int, rounds: int, device: str, scratch: Path
) -> None:
    torch.set_num_threads(threads)
    if tp > 1:
        rendezvous = f"file://{scratch / 'rendezvous'}"
        timeout = timedelta(seconds=120)
        dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=tp, timeout=timeout)
    group = TPGroup(rank, tp)
    where = torch.device("cuda:0" if device == "cuda" else device)
    with torch.inference_mode():
        found = [_measure(case, group, rounds, where) for case in cases]
    if rank == 0:
        (scratch / "found").write_text(json.dumps([asdict(measured) for measured in found]))
    group.barrier()
    group.close()


def _measure(case: Case, group: TPGroup, rounds: int, device: torch.device) -> Measured:
    modes: tuple[SamplingMode, ...] = ("driver", "parallel") if group.size > 1 else ("driver",)
    whole = _made_up_logits(case).to(device)
    width = -(-case.vocabulary // group.size)
    padded = torch.nn.functional.pad(whole, (0, width * group.size - case.vocabulary))
    local = padded[:, group.rank * width :][:, :width]
    runs = {mode: _Run(case, group, mode, WARMUP + rounds, device) for mode in modes}
    times: dict[str, list[float]] = {mode: [] for mode in modes}
    for _ in range(WARMUP + rounds):
        for mode, run in runs.items():  # in turn, so that other load on the machine meets both
            times[mode].append(run.step(local))
    read, by_sort = list[float](), list[float]()
    if group.rank == 0:
        whole = whole.float()
        read = [_timed(lambda: whole.amax(-1), device) for _ in range(WARMUP + rounds)]
        for _ in range(1 + min(rounds, 5)):
            logits = whole.clone()
            by_sort.append(_timed(lambda: _sort_sampler(logits, CONTROLS[case.controls]), device))  # noqa: B023
    group.barrier()
    medians = {mode: median(found[WARMUP:]) for mode, found in times.items()}
    return Measured(
        **asdict(case),
        tp=group.size,
        driver=medians["driver"],
        parallel=medians.get("parallel"),
        read=median(read[WARMUP:]) if read else 0.0,
        sort=median(by_sort[1:]) if by_sort else 0.0,
    )


def _made_up_logits(case: Case) -> Tensor:
    """Weights that fall off as those of a language model do, about as 1 / rank^2; rounded as bf16 is."""
    draw = torch.Generator().manual_seed(0)
    numbers = torch.empty(case.batch, case.vocabulary).exponential_(generator=draw)
    return (2 * numbers).bfloat16().to(DTYPES[case.dtype])


class _Run:
    """A rank's sampler in one mode, with ``case.batch`` requests that decode."""

    def __init__(
        self, case: Case, group: TPGroup, mode: SamplingMode, steps: int, device: torch.device
    ) -> None:
        tokens = PROMPT + steps + 1
        shape = GroupShape(case.batch * blocks_for(tokens), case.batch, tokens)
        policy = SamplingPolicy(mode, group.rank, group.size)
        self._group, self._device = group, device
        self._table = SlotTable(shape, case.vocabulary, owners=group.size)
        graphs, most = None, policy.most_rows(case.batch)
        if device.type == "cuda" and most:
            from worker_svc.sampling.draw_graphs import DrawGraphs  # needed on CUDA only

            columns = group.size * -(-case.vocabulary // group.size)
            graphs = DrawGraphs(GraphMemory(device), case.vocabulary, columns, most)
        rows = () if graphs is None else graphs.rows
        self._staging = Staging(device, torch.float32, tokens, policy, graph_rows=rows)
        state = PenaltyState(policy.state_rows(case.batch), tokens, device)
        self._sampler = StepSampler(group, case.vocabulary, state, graphs)
        self._batches = self._stage(_plans(case, tokens))
        self._sampler.begin(next(self._batches).input.sampling)

    def step(self, logits: Tensor) -> float:
        """Seconds that sampling one step took."""
        batch, logits = next(self._batches), logits.clone()
        self._group.barrier()
        step = logits, batch.input.sampling, batch.layout, batch.draw_words
        return _timed(lambda: self._sampler(*step), self._device)

    def _stage(self, plans: Iterator[Plan]) -> Iterator[StepBatch]:
        for plan in plans:
            batch = self._staging.to_device(self._table.apply(plan))
            batch.await_copies()
            yield batch


def _plans(case: Case, tokens: int) -> Iterator[Plan]:
    """Everyone is admitted and prefilled, then decodes."""
    blocks = blocks_for(tokens)
    draw = torch.Generator().manual_seed(1)
    prompts = torch.randint(case.vocabulary, (case.batch, PROMPT), generator=draw).tolist()
    yield Plan(
        epoch=1,
        step=1,
        admissions=tuple(
            Admission(slot, slot, str(slot), tuple(prompt), 0, 0, replace(CONTROLS[case.controls], seed=slot))
            for slot, prompt in enumerate(prompts)
        ),
        grants=tuple(
            Grant(slot, tuple(range(slot * blocks, (slot + 1) * blocks))) for slot in range(case.batch)
        ),
        chunks=tuple(Chunk(slot, 0, PROMPT) for slot in range(case.batch)),
    )
    step = 1
    while True:
        step += 1
        yield Plan(epoch=1, step=step, num_decodes=case.batch)


def _sort_sampler(logits: Tensor, sampling: SamplingParams) -> Tensor:
    """What a sampler costs that sorts the vocabulary; greedy it need not. Without penalties and lists."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    logits /= sampling.temperature
    if sampling.top_k or sampling.top_p < 1:
        values, ids = logits.sort(dim=-1)
        if sampling.top_k:
            values.masked_fill_(values < values[:, -sampling.top_k, None], -torch.inf)
        if sampling.top_p < 1:
            dropped = values.softmax(-1).cumsum_(-1) <= 1 - sampling.top_p
            dropped[:, -1] = False
            values.masked_fill_(dropped, -torch.inf)
        logits = values.scatter(-1, ids, values)
    noise = torch.empty_like(logits).exponential_()
    return logits.softmax(-1).div_(noise).argmax(-1)


def _timed(body: Callable[[], object], device: torch.device) -> float:
    """Seconds until what ``body`` launches is done, and nothing that was launched before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return run_seconds(body, device)
