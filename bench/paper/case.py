"""What is predicted: one group with a fixed number of requests in flight, all of the same lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

from albireo.contract.plan import BLOCK_SIZE
from bench.paper.data import Mode
from bench.paper.models import MODELS
from worker_svc.cost.device import Device
from worker_svc.cost.memory import kv_blocks
from worker_svc.cost.physical import PhysicalCost
from worker_svc.cost.work import StepWork

MAX_SEQS = 256


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of every request."""

    prompt: int
    output: int

    @property
    def mean(self) -> float:
        """Tokens that a decoding request has in the KV cache, on average over its life."""
        return self.prompt + (self.output + 1) / 2

    def mean_step(self, rows: int) -> StepWork:
        """With ``rows`` requests that decode, each of which ends after ``output`` steps and is followed by
        another: a step computes the prompts of ``rows / output`` requests, with every penalty on."""
        prefill = rows * self.prompt / self.output
        return StepWork(
            decodes=rows,
            context=round(rows * self.mean),
            prefill=round(prefill),
            prefill_pairs=round(prefill * (self.prompt + 1) / 2),
            penalized=rows,
        )


LENGTHS = Lengths(prompt=100, output=600)
"""Chosen: the notes on the paper have none. See ``document``."""


@dataclass(frozen=True, slots=True)
class Case:
    """One group, and how many requests are in flight."""

    model: str
    tp: int
    mode: Mode
    in_flight: int

    @property
    def same(self) -> Case:
        """The case that stands for this one: at t = 1 there is nothing to sample in parallel."""
        if self.tp == 1 and self.mode == "async only":
            return Case(self.model, self.tp, "full", self.in_flight)
        return self

    def cost(self, device: Device) -> PhysicalCost:
        return PhysicalCost(device, MODELS[self.model], self.tp)

    def blocks(self, device: Device) -> int:
        """KV blocks of the group; 0 where the weights leave no memory for them."""
        try:
            return kv_blocks(device, MODELS[self.model], self.tp, max_seqs=MAX_SEQS)
        except ValueError:
            return 0

    def running(self, device: Device, lengths: Lengths) -> int:
        """How many of the requests in flight the KV blocks are enough for. The last block of each is
        half full on average."""
        tokens = self.blocks(device) * BLOCK_SIZE
        return min(self.in_flight, int(tokens / (lengths.mean + BLOCK_SIZE / 2)))


Predict = Callable[[Case, Device, Lengths], float]
"""Thousands of output tokens per second; 0 where the model does not fit."""


def throughputs(
    predict: Predict, cases: Iterable[Case], device: Device, lengths: Lengths, *, processes: int = 1
) -> Mapping[Case, float]:
    """The prediction for each case, in the order of the cases."""
    wanted = list(cases)
    distinct = list(dict.fromkeys(case.same for case in wanted))
    run = partial(_predict, predict, device, lengths)
    if processes == 1:
        found = dict(zip(distinct, map(run, distinct), strict=True))
    else:
        with ProcessPoolExecutor(processes) as pool:
            found = dict(zip(distinct, pool.map(run, distinct), strict=True))
    return {case: found[case.same] for case in wanted}


def _predict(predict: Predict, device: Device, lengths: Lengths, case: Case) -> float:
    return predict(case, device, lengths)
