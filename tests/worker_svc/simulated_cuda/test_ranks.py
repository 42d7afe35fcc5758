"""Tensor parallelism on simulated devices: ranks bring what one rank on the CPU brings, and faults show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from albireo.contract.plan import Plan
from tests.worker_svc.cuda.rank_steps import RankSteps
from tests.worker_svc.cuda.scene import MIXED, SLOTS, ids, in_turn, make_runner, staggered
from tests.worker_svc.ranks import run_group
from tests.worker_svc.simulated_cuda.ranks import OnSimulated
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.sampling.layout import PARALLEL_ROWS, SamplingMode

SEEDS = range(8)


def buckets_used(plans: list[Plan], sampling: SamplingMode, seeds: Sequence[int], scratch: Path) -> set[int]:
    """By two ranks, under each seed; raises where they do not bring what one rank on the CPU brings."""
    expected = ids(in_turn(make_runner(torch.device("cpu")), plans))
    job = RankSteps(plans, sampling, cuda_graphs=True)
    found = run_group(2, {str(seed): OnSimulated(job, seed) for seed in seeds}, scratch)
    assert {seed: steps.ids == expected for seed, steps in found.items()} == dict.fromkeys(found, True)
    return set[int]().union(*(steps.buckets for steps in found.values()))


def test_graphs_and_parallel_sampling_bring_what_one_rank_on_the_cpu_brings(tmp_path: Path) -> None:
    plans = list(staggered(9, 12, MIXED))
    assert buckets_used(plans, "parallel", (0, 2), tmp_path) == {1, 2, 4, 8}


def test_so_do_steps_with_few_and_with_many_rows(tmp_path: Path) -> None:
    """Of which rank 0 samples the former alone."""
    plans = list(staggered(SLOTS, 40))
    assert max(plan.num_decodes for plan in plans) > PARALLEL_ROWS
    assert buckets_used(plans, "auto", (2,), tmp_path) == {1, 2, 4, 8, 16, SLOTS}


@dataclass(frozen=True)
class Reduced:
    """A sum over ranks of what another stream writes; ``fault``: the collective does not wait for that."""

    fault: bool

    def __call__(self, group: TPGroup) -> tuple[float, ...]:
        x, side = torch.zeros(4, device="cuda"), torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            y = x + 1 + group.rank
        y.record_stream(torch.cuda.current_stream())
        if not self.fault:
            torch.cuda.current_stream().wait_stream(side)
        group.all_reduce(y)
        return tuple(y.nan_to_num().tolist())


def test_a_collective_that_does_not_wait_for_its_input_shows(tmp_path: Path) -> None:
    faults = (False, True)
    jobs = {f"{fault}, {seed}": OnSimulated(Reduced(fault), seed) for fault in faults for seed in SEEDS}
    found = run_group(2, jobs, tmp_path)
    right, wrong = ({found[f"{fault}, {seed}"] for seed in SEEDS} for fault in faults)
    assert right == {(3.0,) * 4}
    assert wrong != right


@dataclass(frozen=True)
class Replayed:
    """Sums over ranks in a graph, of what its input holds at each replay, launched ahead of the device."""

    def __call__(self, group: TPGroup) -> list[list[float]]:
        x, graph = torch.zeros(2, device="cuda"), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = group.all_reduce(x + 1) * 2
        found = []
        for number in range(3):
            x.fill_(number + 10 * group.rank)
            graph.replay()
            found.append(y.clone())
        return [tensor.tolist() for tensor in found]


def test_collectives_in_graphs_run_at_each_replay(tmp_path: Path) -> None:
    found = run_group(2, {str(seed): OnSimulated(Replayed(), seed) for seed in SEEDS}, tmp_path)
    assert all(rows == [[24.0] * 2, [28.0] * 2, [32.0] * 2] for rows in found.values()), found


@dataclass(frozen=True)
class Launched:
    """Collectives while every call that waits for the device fails."""

    def __call__(self, group: TPGroup) -> None:
        x = torch.ones(4, 6, device="cuda")
        torch.cuda.set_sync_debug_mode("error")
        group.all_reduce(x)
        group.exchange_columns(x, (3, 1), torch.float32)
        group.gather_rows(x[: 3 - 2 * group.rank], (3, 1))
        torch.cuda.set_sync_debug_mode("default")


def test_the_host_waits_for_no_collective(tmp_path: Path) -> None:
    run_group(2, {"launched": OnSimulated(Launched(), 2)}, tmp_path)
