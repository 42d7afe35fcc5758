"""A list of plans through a runner: step by step, or through stages as a rank runs them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np

from albireo.contract.plan import Plan
from albireo.runtime.clock import SYSTEM_CLOCK
from albireo.v1 import control_pb2 as control
from albireo.v1 import inference_pb2 as api
from worker_svc.runner.interface import HostOutput
from worker_svc.runner.model_runner import ModelRunner
from worker_svc.stages.queue import StageQueue
from worker_svc.stages.step import ComputedStep, StagedStep

Sampled = tuple[list[int], list[int], list[int], dict[int, api.TokenLogprobs]]
"""Slots, incarnations, ids and log-probabilities of a step: what can be compared."""


def plain(output: HostOutput) -> Sampled:
    """By slot: the order of a step's rows is the runner's own."""
    order = np.argsort(output.slots)
    logprobs = {new: output.logprobs[old] for new, old in enumerate(order.tolist()) if old in output.logprobs}
    own = output.slots, output.incarnations, output.ids
    slots, incarnations, ids = (numbers[order].tolist() for numbers in own)
    return slots, incarnations, ids, logprobs


def in_turn(runner: ModelRunner, plans: list[Plan]) -> list[Sampled]:
    """Each step is prepared after the one before it has come to the host."""
    runner.reset()
    return [plain(runner.execute(runner.prepare(plan)).to_host()) for plan in plans]


def overlapped(runner: ModelRunner, plans: list[Plan], settled: Sequence[int] = ()) -> list[Sampled]:
    """Three threads: a step is prepared while earlier ones run, and fetched while later ones do.

    ``settled``: how many steps had settled when each plan was made: none is read before. It matters to KV
    tiers alone, whose copies into blocks begin when a plan is read.
    """
    runner.reset()
    stop = threading.Event()
    staged: StageQueue[StagedStep] = StageQueue(2, stop, SYSTEM_CLOCK)
    computed: StageQueue[ComputedStep] = StageQueue(2, stop, SYSTEM_CLOCK)
    outputs: list[Sampled] = []

    def prepare() -> None:
        for plan, needed in zip(plans, settled or [0] * len(plans), strict=True):
            while len(outputs) < needed and not stop.is_set():
                time.sleep(1e-4)
            staged.put(StagedStep(plan, runner.prepare(plan), control.StepTiming()))

    def fetch() -> None:
        while len(outputs) < len(plans) and (step := computed.get()) is not None:
            outputs.append(plain(step.output.to_host()))

    threads = [threading.Thread(target=prepare, daemon=True), threading.Thread(target=fetch, daemon=True)]
    for thread in threads:
        thread.start()
    for _ in plans:
        step = staged.get()
        assert step is not None
        computed.put(ComputedStep(step.plan, runner.execute(step.batch), step.timing))
    for thread in threads:
        thread.join(30)
    stop.set()
    return outputs
