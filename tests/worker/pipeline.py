"""A list of plans through a runner: step by step, or through stages as a rank runs them."""

from __future__ import annotations

import threading

from albireo.plan import Plan
from worker_svc.runner import HostOutput, ModelRunner
from worker_svc.stage import ComputedStep, StagedStep, StageQueue


def in_turn(runner: ModelRunner, plans: list[Plan]) -> list[HostOutput]:
    """Each step is prepared after the one before it has come to the host."""
    runner.reset()
    return [runner.execute(runner.prepare(plan)).to_host() for plan in plans]


def overlapped(runner: ModelRunner, plans: list[Plan]) -> list[HostOutput]:
    """Three threads: a step is prepared while earlier ones run, and fetched while later ones do."""
    runner.reset()
    stop = threading.Event()
    staged: StageQueue[StagedStep] = StageQueue(2, stop)
    computed: StageQueue[ComputedStep] = StageQueue(2, stop)
    outputs: list[HostOutput] = []

    def prepare() -> None:
        for plan in plans:
            staged.put(StagedStep(plan, runner.prepare(plan)))

    def fetch() -> None:
        while len(outputs) < len(plans) and (step := computed.get()) is not None:
            outputs.append(step.output.to_host())

    threads = [threading.Thread(target=prepare, daemon=True), threading.Thread(target=fetch, daemon=True)]
    for thread in threads:
        thread.start()
    for _ in plans:
        step = staged.get()
        assert step is not None
        computed.put(ComputedStep(step.plan, runner.execute(step.batch)))
    for thread in threads:
        thread.join(30)
    stop.set()
    return outputs
