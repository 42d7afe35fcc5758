"""The model alone on one device: steps against the device's limits, their launches, and energy a token.

    python -m bench.gpu_session.model SHAPE RESULT --device cuda

``SHAPE`` is a directory with a ``config.json``; the weights are random. Steps run one after the other, as
with ``--synchronous``; the time of the forward is the device's own. ``RESULT`` is written after each load, so
it has what was measured before a failure.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
import typer

from albireo.contract.plan import Plan, blocks_for
from albireo.runtime.kv_memory import KvMemory
from bench.gpu_session.launching import launched_ahead, launching
from bench.serve.gpus import Sample, summarize_gpus
from bench.throughput.random_weights import RandomWeights
from bench.throughput.static_batch import TimedStep, mixed_plans, plans, timed_step
from bench.throughput.step_limit import DeviceLimits
from worker_svc.collectives.tp_group import TPGroup, compute_threads
from worker_svc.cost.shape import ModelShape
from worker_svc.cost.work import StepWork
from worker_svc.model.config import ModelConfig
from worker_svc.model.kv_cache import block_bytes
from worker_svc.runner.model_runner import ModelRunner
from worker_svc.telemetry.gpu import GpuReader

Found = TypeVar("Found")

DTYPE = torch.bfloat16
POWER = ("watts", "joules_per_output_token")
"""What is kept of the readings of a GPU."""


@dataclass(frozen=True, slots=True)
class Loads:
    """What is measured."""

    rows: tuple[int, ...]  # of decode steps
    prompt: int  # tokens of each row before the first decode step
    steps: int
    prefill: int  # tokens of one prompt, in one step
    mixed: tuple[int, int]  # of one step: decoding rows, and tokens of a prompt
    rounds: int

    @property
    def outputs(self) -> int:
        """Tokens of each row: the prefill samples one."""
        return self.steps + 1


FULL = Loads(rows=(1, 64, 256), prompt=384, steps=256, prefill=2048, mixed=(64, 512), rounds=3)
QUICK = Loads(rows=(1, 4), prompt=32, steps=16, prefill=64, mixed=(2, 32), rounds=1)


class Measurement:
    """A runner, and what its steps are compared with."""

    def __init__(self, shape: Path, device: torch.device, loads: Loads) -> None:
        """Raises CheckpointError for a shape that is not supported."""
        self.limits = DeviceLimits.measured(device, DTYPE)
        config = ModelConfig.from_dir(shape)
        blocks = max(loads.rows) * blocks_for(loads.prompt + loads.outputs) + blocks_for(loads.prefill + 1)
        self.runner = ModelRunner(
            shape,
            TPGroup(),
            device=device,
            dtype=DTYPE,
            kv_memory=KvMemory(blocks * block_bytes(config, 1, DTYPE)),
            max_seqs=max(loads.rows),
            max_model_len=max(loads.prompt + loads.outputs, loads.prefill + 1),
            weights=RandomWeights(shape, device, DTYPE),
        )
        self.shape = ModelShape(config, tp=1)
        self._loads = loads
        self._gpu = GpuReader.of(device, rank=0)

    def decode(self, rows: int) -> dict[str, Any]:
        """Steps in which ``rows`` requests decode. Energy is that of the decode steps alone."""
        loads = self._loads
        todo = list(plans(rows, loads.prompt, loads.outputs, self.runner.config.vocab_size))
        self._run(todo)  # once before it counts
        steps: list[TimedStep] = []
        power: list[dict[str, Any]] = []
        runs: list[float] = []
        for _ in range(loads.rounds):
            filled = self._run([plan for plan in todo if plan.chunks])
            before = self._sample()
            found = [timed_step(self.runner, plan) for plan in todo if not plan.chunks]
            after = self._sample()
            steps += found
            runs.append(sum(step.whole for step in filled + found))
            power.append(summarize_gpus([before, after], after.at - before.at, rows * len(found)))
        context = round(rows * (loads.prompt + loads.outputs / 2))
        work = StepWork(decodes=rows, context=context, greedy=rows)
        return {
            "rows": rows,
            "context": loads.prompt + loads.outputs // 2,
            "tokens_per_second": rows / _median(step.whole for step in steps),
            **self._against_limit(steps, work),
            "run_seconds": _median(runs),
            **{name: _median(each[name] for each in power) for name in POWER if name in power[0]},
        }

    def prefill(self) -> dict[str, Any]:
        """One prompt in one step, with an empty cache."""
        tokens, runs = self._loads.prefill, 3 * self._loads.rounds
        todo = list(plans(1, tokens, 1, self.runner.config.vocab_size))
        work = StepWork(prefill=tokens, prefill_pairs=tokens * (tokens + 1) // 2, greedy=1)
        return self._chunk_steps(todo, work, runs)

    def mixed(self) -> dict[str, Any]:
        """Steps in which requests decode and the prompt of another one is computed."""
        (rows, tokens), loads = self._loads.mixed, self._loads
        steps = 3 * loads.rounds
        todo = mixed_plans(rows, loads.prompt, tokens, steps, self.runner.config.vocab_size)
        work = StepWork(
            decodes=rows,
            context=round(rows * (loads.prompt + steps / 2)),
            prefill=tokens,
            prefill_pairs=tokens * (tokens + 1) // 2,
            greedy=rows + 1,
        )
        return self._chunk_steps(todo, work, 1)

    def _chunk_steps(self, todo: list[Plan], work: StepWork, runs: int) -> dict[str, Any]:
        """``todo``: plans, of which those with as many decoding rows as ``work`` and a chunk are measured."""
        measured = [bool(plan.chunks) and plan.num_decodes == work.decodes for plan in todo]

        def run(step: Callable[[ModelRunner, Plan], Found]) -> list[Found]:
            return [found for _ in range(runs) for found in compress(self._run_by(step, todo), measured)]

        self._run(todo)
        steps, ahead = run(timed_step), list[float | None]()
        if self.runner.device.type == "cuda":  # a CPU computes while it launches
            ahead = run(partial(launched_ahead, launch=_median(step.launch for step in steps)))
        return {
            "rows": work.decodes,
            "tokens": work.prefill,
            "tokens_per_second": work.rows / _median(step.whole for step in steps),
            **self._against_limit(steps, work),
            **launching(steps, ahead),
        }

    def _run(self, todo: list[Plan]) -> list[TimedStep]:
        return self._run_by(timed_step, todo)

    def _run_by(self, step: Callable[[ModelRunner, Plan], Found], todo: list[Plan]) -> list[Found]:
        self.runner.reset()
        return [step(self.runner, plan) for plan in todo]

    def _sample(self) -> Sample:
        return Sample(time.perf_counter(), [] if self._gpu is None else [self._gpu.read()])

    def _against_limit(self, steps: list[TimedStep], work: StepWork) -> dict[str, Any]:
        """Medians. Shares are 1 where the step takes no longer than it must."""
        limit, bound = self.limits.of_step(self.shape, work)
        whole, forward = _median(step.whole for step in steps), _median(step.forward for step in steps)
        return {
            "steps": len(steps),
            "step_ms": whole * 1e3,
            "step_p99_ms": float(np.percentile([step.whole for step in steps], 99)) * 1e3,
            "forward_ms": forward * 1e3,
            "sampling_ms": _median(step.sampling for step in steps) * 1e3,
            "limit_ms": limit * 1e3,
            "bound": bound,
            "share_of_limit": limit / forward,
            "share_of_limit_whole": limit / whole,
        }


def _median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))


def main(
    shape: Annotated[Path, typer.Argument(help="Directory with the config.json of a model.")],
    result: Annotated[Path, typer.Argument(help="JSON file to write.")],
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    quick: Annotated[bool, typer.Option("--quick", help="Few rows and steps: whether it runs.")] = False,
) -> None:
    """Measures decode steps, a prefill and steps that are both, of random weights."""
    torch.set_num_threads(compute_threads(1))
    loads = QUICK if quick else FULL
    measurement = Measurement(shape, torch.device("cuda:0" if device == "cuda" else device), loads)
    found: dict[str, Any] = {
        "limits": asdict(measurement.limits),
        "weight_gb": measurement.shape.weight_bytes / 1e9,
        "dtype": str(DTYPE).removeprefix("torch."),
        "kernels": measurement.runner.kernels,
        "decode": [],
    }
    result.write_text(json.dumps(found), encoding="utf-8")
    for rows in loads.rows:
        found["decode"].append(measurement.decode(rows))
        result.write_text(json.dumps(found), encoding="utf-8")
    found["prefill"] = measurement.prefill()
    result.write_text(json.dumps(found), encoding="utf-8")
    found["mixed"] = measurement.mixed()
    result.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
