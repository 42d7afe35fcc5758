"""What the paper's own figures say of terms that the cost model does not have.

*Host time.* The model has one host, fitted to one row; each row of the paper implies its own.

*Contention for KV memory.* T(t) >= 2 T(t / 2) takes it: at t / 2 not all requests fit, for which each must
have many tokens in the KV cache. Other figures of the paper say how many it can have at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from albireo.contract.plan import BLOCK_SIZE
from bench.paper import data
from bench.paper.calibration import calibrated
from bench.paper.case import Case, Lengths
from bench.paper.data import Mode
from bench.paper.degrees import CLAIMS
from bench.paper.estimate import estimated
from worker_svc.cost.device import Device
from worker_svc.cost.work import StepWork

FULL: Mode = "full"
OUTPUTS = range(200, 20_000, 50)
"""Tokens of outputs to try."""


def host_ms(row: data.Row) -> float:
    """What overlap hides in one step of a row: the period of the synchronous mode less that of async only."""
    return data.IN_FLIGHT / row.throughput["synchronous"] - data.IN_FLIGHT / row.throughput["async only"]


@dataclass(frozen=True, slots=True)
class Contention:
    """Of one model, in the full system: what T(``tp``) >= 2 T(``tp`` / 2) takes."""

    model: str
    tp: int
    tokens: float = math.inf  # in the KV cache, of each request
    weights: float = (
        math.inf
    )  # share of the bandwidth at which weights are read, for the calibrated row to be met


def contention(base: Device, prompt: int) -> list[Contention]:
    """For the models whose t_e the full system raises, by the paper's text. Longer and longer outputs are
    tried, the device fitted to the calibrated row with each."""
    claims = [claim for claim in CLAIMS if claim.t_e[FULL] > 2]
    return [_contention(base, claim.model, claim.t_e[FULL], prompt) for claim in claims]


def _contention(base: Device, model: str, tp: int, prompt: int) -> Contention:
    for output in OUTPUTS:
        lengths = Lengths(prompt, output)
        device = calibrated(base, lengths)
        whole, half = (
            estimated(Case(model, t, FULL, data.IN_FLIGHT), device, lengths) for t in (tp, tp // 2)
        )
        if whole >= 2 * half:
            return Contention(model, tp, lengths.mean, device.efficiency[0].weights)
    return Contention(model, tp)


def most_tokens(device: Device, lengths: Lengths) -> dict[str, float]:
    """Tokens in the KV cache that a request can have at most, by figures of the paper."""
    small = Case("Llama2-7B", 1, FULL, data.IN_FLIGHT)
    alone = Case("Qwen2.5-32B", 1, FULL, data.IN_FLIGHT)
    split = next(split for split in data.SPLITS if split.tp == 1)
    target = split.throughput[FULL] / split.groups
    return {
        f"{small.model}, t = 1, {data.IN_FLIGHT} in flight": _tokens(small, device) / small.in_flight,
        f"{alone.model}, {split.name}, {split.throughput[FULL]:g} k tokens/s": _tokens(alone, device)
        / _rows_of(alone, target, device, lengths),
    }


def _tokens(case: Case, device: Device) -> int:
    """That the KV blocks hold."""
    return case.blocks(device) * BLOCK_SIZE


def _rows_of(case: Case, throughput: float, device: Device, lengths: Lengths) -> int:
    """The fewest rows that reach ``throughput`` thousand tokens a second while the KV blocks are full."""
    for rows in range(1, case.in_flight):
        if rows / _full_period(case, device, lengths, rows) / 1e3 >= throughput:
            return rows
    return case.in_flight


def _full_period(case: Case, device: Device, lengths: Lengths, rows: int) -> float:
    """Seconds of a step that reads the whole KV cache."""
    cost, mean = case.cost(device), lengths.mean_step(rows)
    work = StepWork(
        mean.decodes, _tokens(case, device), mean.prefill, mean.prefill_pairs, penalized=mean.penalized
    )
    return cost.forward_seconds(work) + cost.sampling_seconds(work, parallel=True)
