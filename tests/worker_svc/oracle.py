"""Requests under the real scheduler core and the real model runner, without logs or processes between.

Every rank of a group runs the same code here: sampled ids reach all ranks, so all their schedulers plan
the same. Nothing in this module knows what the right answers are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from albireo.contract.plan import Finish, Plan, SamplingParams, StepResult, Submission, finish_of
from albireo.runtime.kv_memory import KvMemory
from albireo.v1 import inference_pb2 as api
from scheduler_svc.core import Limits, SchedulerCore
from worker_svc.batch.staging import StepBatch
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.kv_tiers.interface import Tier
from worker_svc.kv_tiers.layout import KvLayout
from worker_svc.model.config import ModelConfig
from worker_svc.model.kv_cache import block_bytes
from worker_svc.runner.interface import HostOutput
from worker_svc.runner.model_runner import ModelRunner
from worker_svc.sampling.layout import SamplingMode

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ask:
    """One request, and the step after which it is submitted, unless the group is idle before."""

    name: str
    prompt: tuple[int, ...]
    sampling: SamplingParams
    after_step: int = 0


@dataclass(frozen=True)
class Scenario:
    """How requests are run: what the group holds, and the scheduler's limits."""

    num_blocks: int = 64
    max_model_len: int = 128
    chunk: int = 512
    ahead: int = 1
    prefix_cache: bool = False
    together: bool = True  # else each request alone, after the others


@dataclass
class Answer:
    """What a request brought."""

    ids: list[int] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)  # a row of the whole vocabulary for each id
    finish: Finish = Finish.NONE
    prompt_logprobs: dict[int, api.TokenLogprobs] = field(default_factory=dict)  # by index in the prompt


@dataclass
class Outcome:
    """What a run brought, and what the scheduler made of it on the way."""

    answers: dict[str, Answer] = field(default_factory=dict)
    plans: list[Plan] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)  # steps, when each plan was made
    preemptions: int = 0
    prefix_hit_tokens: int = 0
    unfetched: int = 0  # occupancies that lacked KV of a fetch


class Capture:
    """Stands in for a runner's model, and keeps the logits of its last call: all ranks' columns."""

    def __init__(self, runner: ModelRunner, group: TPGroup) -> None:
        self._model = runner._model
        self._vocab_size = runner.config.vocab_size
        self._group = group
        self.ranks = group.size
        self.last = torch.empty(0)
        runner._model = self  # type: ignore[assignment]

    def hidden(self, *args: object) -> Tensor:
        return self._model.hidden(*args)  # type: ignore[arg-type]

    def logits(self, hidden: Tensor, rows: Tensor) -> Tensor:
        local = self._model.logits(hidden, rows)
        parts = [local.clone()]
        if self._group.size > 1:
            parts = [torch.empty_like(local) for _ in range(self._group.size)]
            dist.all_gather(parts, local)
        self.last = torch.cat(parts, dim=1)[:, : self._vocab_size].cpu().float()
        return local


def make_runner(
    directory: Path,
    group: TPGroup,
    scenario: Scenario,
    *,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
    sampling: SamplingMode = "auto",
    tiers: Callable[[KvLayout], Sequence[Tier]] | None = None,
) -> ModelRunner:
    """A runner with just the scenario's number of blocks."""
    config = ModelConfig.from_dir(directory)
    return ModelRunner(
        directory,
        group,
        device=device,
        dtype=dtype,
        cuda_graphs=False,  # a graph keeps the model that it was captured with, whatever we put in its place
        kv_memory=KvMemory(scenario.num_blocks * block_bytes(config, group.size, dtype)),
        max_seqs=8,
        max_model_len=scenario.max_model_len,
        sampling=sampling,
        tiers=tiers,
    )


def run(runner: ModelRunner, group: TPGroup, scenario: Scenario, asks: list[Ask]) -> Outcome:
    """Runs the requests to their ends."""
    capture = Capture(runner, group)
    outcome = Outcome()
    for some in [asks] if scenario.together else [[ask] for ask in asks]:
        runner.reset()
        _Run(runner, capture, scenario, some, outcome).to_the_end()
    return outcome


class _Run:
    """One epoch: a scheduler core, and what rank 0's output stage knows of the slots."""

    def __init__(
        self, runner: ModelRunner, capture: Capture, scenario: Scenario, asks: list[Ask], outcome: Outcome
    ) -> None:
        limits = Limits(
            max_num_batched_tokens=2 * scenario.chunk,
            max_num_seqs=runner.shape.max_seqs,
            prefill_chunk=scenario.chunk,
            max_in_flight=scenario.ahead,
            prefix_cache=scenario.prefix_cache,
            digest_every=1,
        )
        self._core = SchedulerCore(limits, epoch=1, salt=b"oracle")
        self._group = self._core.join("oracle", runner.shape)
        self._runner = runner
        self._capture = capture
        self._outcome = outcome
        self._coming = deque(sorted(asks, key=lambda ask: ask.after_step))
        self._asks = {ask.name: ask for ask in asks}
        self._names: dict[int, str] = {}  # by incarnation
        self._unfetched: set[int] = set()

    def to_the_end(self) -> None:
        settled = 0
        ahead: deque[tuple[Plan, StepBatch]] = deque()
        while True:
            while self._coming and (self._coming[0].after_step <= settled or self._idle()):
                ask = self._coming.popleft()
                self._outcome.answers[ask.name] = Answer()
                self._core.submit(Submission(ask.name, ask.prompt, ask.sampling), now=float(settled))
            while (plan := self._plan(float(settled))) is not None:
                self._outcome.plans.append(plan)
                self._outcome.settled.append(settled)
                ahead.append((plan, self._runner.prepare(plan)))
            if not ahead:
                break
            plan, batch = ahead.popleft()
            output = self._runner.execute(batch).to_host()
            self._group.settle(self._result(plan, output))
            settled += 1
        stats = self._core.stats()
        self._outcome.preemptions += stats.preemptions
        self._outcome.prefix_hit_tokens += stats.prefix_hit_tokens

    def _plan(self, now: float) -> Plan | None:
        self._core.place()
        return self._group.plan(now)

    def _idle(self) -> bool:
        stats = self._core.stats()
        return not (stats.waiting or stats.running or stats.steps_in_flight)

    def _result(self, plan: Plan, output: HostOutput) -> StepResult:
        self._names |= {admission.incarnation: admission.request_id for admission in plan.admissions}
        for incarnation, (start, logprobs) in output.prompt_logprobs.items():
            answer = self._outcome.answers[self._names[incarnation]]
            answer.prompt_logprobs |= dict(enumerate(logprobs, start))
        report = output.tiers
        if report is not None:
            self._unfetched |= set(report.unfetched)
            self._outcome.unfetched += len(report.unfetched)
        rows = []
        for index, (slot, incarnation, token) in enumerate(
            zip(output.slots.tolist(), output.incarnations.tolist(), output.ids.tolist(), strict=True)
        ):
            if incarnation in self._unfetched:
                continue
            name = self._names[incarnation]
            answer = self._outcome.answers[name]
            if answer.finish is not Finish.NONE:
                continue
            answer.ids.append(token)
            answer.logits.append(self._capture.last[index])
            answer.finish = self._finish(self._asks[name], token, len(answer.ids))
            rows.append((slot, incarnation, max(0, token), int(answer.finish)))  # as the output stage has it
        slots, incarnations, ids, finishes = zip(*rows, strict=True) if rows else ((), (), (), ())
        result = StepResult(plan.epoch, plan.step, slots, incarnations, ids, finishes)
        if report is None:
            return result
        # What a rank alone knows would let the schedulers of the ranks differ.
        return replace(
            result,
            unfetched=report.unfetched,
            lost=() if self._capture.ranks > 1 else report.lost,
            contents=report.contents,
            contents_end=report.contents_end,
        )

    def _finish(self, ask: Ask, token: int, num_outputs: int) -> Finish:
        if token < 0:
            return Finish.ERROR
        return finish_of(
            ask.sampling,
            token,
            num_outputs,
            len(ask.prompt) + num_outputs,
            eos_ids=self._runner.config.eos_ids,
            max_model_len=self._runner.shape.max_model_len,
        )
