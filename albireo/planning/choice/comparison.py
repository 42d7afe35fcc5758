"""Simulates every split of the devices, several at a time in processes of their own.

``albireo plan`` calls it. The groups of a split are alike, so one of them is simulated, with its share of the
workload, and the throughput is scaled to all.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty
from typing import Any

from albireo.planning.choice.device_time import MeteredCost, Reading, per_token, run_terms
from albireo.planning.choice.outcome import Outcome
from albireo.planning.choice.question import Question
from albireo.planning.choice.share import Share, share_of
from albireo.planning.choice.split import FittingSplit
from albireo.planning.choice.steady import Part, counted, steady_part, tokens_within, whole_run
from albireo.planning.figures import summarize_requests
from albireo.planning.hits import hit_shares
from albireo.planning.result import SimulationResult
from worker_svc.cost.device import Device
from worker_svc.cost.physical import PhysicalCost
from worker_svc.cost.tiers import described_tiers

MOST_PROCESSES = 4
POLL_SECONDS = 0.1

OnProgress = Callable[[int, int], None]
"""Gets how many requests have ended, and of how many."""


@dataclass(frozen=True, slots=True)
class Job:
    """One split to simulate. Passed to a process."""

    fitting: FittingSplit
    question: Question

    @property
    def share(self) -> Share:
        return share_of(self.question.workload, self.fitting.split.groups)


def run_job(job: Job, on_progress: OnProgress | None = None) -> Outcome:
    """Simulates one group of the split with its share of the workload."""
    # Here: it imports the tiers, which the process that starts the others does not need.
    from albireo.planning.simulation.run import simulate

    split, question, share = job.fitting.split, job.question, job.share
    serving, part = question.serving, steady_part(share.workload)
    physical = PhysicalCost(question.device, question.config, split.tp)
    cost = MeteredCost(physical)
    readings = {0: Reading()}  # by requests that have ended

    def on_end(done: int, total: int) -> None:
        if done in (part.first, part.last, total):
            readings[done] = cost.read()
        if on_progress is not None:
            on_progress(done, total)

    result = simulate(
        share.workload,
        cost,
        num_blocks=job.fitting.num_blocks,
        max_seqs=serving.max_seqs,
        max_model_len=serving.max_model_len,
        tiers=described_tiers(physical, physical.shape),
        synchronous=serving.synchronous,
        sampling=serving.sampling,
        scheduler=serving.scheduler_options(),
        on_progress=on_end,
    )
    begin, end = part.span(result.requests)
    if begin == end:  # all requests ended at once
        part = whole_run(share.workload)
    return _outcome(job, share, part, result, readings[part.last].since(readings[part.first]))


def _outcome(job: Job, share: Share, part: Part, result: SimulationResult, steady: Reading) -> Outcome:
    """``steady``: the sums of the steps within ``part``."""
    split, question = job.fitting.split, job.question
    begin, end = part.span(result.requests)
    throughput = share.scale * tokens_within(result.requests, begin, end) / (end - begin)
    used = split.tp * share.scale
    terms = run_terms(steady.seconds, end - begin, result.totals)
    busy = min(1.0, sum(steady.seconds.values()) / (end - begin))
    figures = summarize_requests(counted(share.workload, result.requests, begin, end), [])
    prompts = sum(request.prompt for request in share.workload.requests)
    return Outcome(
        split=split,
        num_blocks=result.num_blocks,
        slots=question.serving.max_seqs,
        concurrency=share.workload.concurrency,
        requests=len(share.workload.requests),
        errors=dict(Counter(request.error for request in result.requests if request.error)),
        tokens_per_second=throughput,
        ttft=figures["ttft"],
        tpot=figures["tpot"],
        kv_headroom=1 - result.peak_blocks / result.num_blocks,
        preemptions=result.preemptions,
        hits=hit_shares(result),
        recomputed=max(0.0, result.totals.prefill_tokens / prompts - 1),
        rows=steady.rows / steady.steps,
        terms=per_token(terms, devices=question.devices, used=used, tokens_per_second=throughput),
        joules_per_token=_joules(question.device, busy, used / throughput),
    )


def _joules(device: Device, busy: float, device_seconds: float) -> float | None:
    """Energy of one output token, of the devices that are used: their power at full load while they compute,
    and their idle power otherwise. Rough: a step that reads memory takes less than full load."""
    if not device.watts:
        return None
    return device_seconds * (busy * device.watts + (1 - busy) * device.idle_watts)


def compare(jobs: Sequence[Job], on_progress: OnProgress, *, processes: int | None = None) -> list[Outcome]:
    """The outcomes of ``jobs``, in their order, the same ones each time.

    ``processes``: by default one a core; 1 simulates in this process. ``on_progress`` counts the simulated
    requests of all jobs.
    """
    total = sum(len(job.share.workload.requests) for job in jobs)
    if processes is None:
        processes = min(len(jobs), MOST_PROCESSES, len(os.sched_getaffinity(0)))
    progress = _Progress(total, on_progress)
    if processes > 1:
        return _in_processes(jobs, progress, processes)
    return [run_job(job, progress.of(number)) for number, job in enumerate(jobs)]


class _Progress:
    """The sum over the jobs of what each has done."""

    def __init__(self, total: int, on_progress: OnProgress) -> None:
        self._done: dict[int, int] = {}
        self._total = total
        self._on_progress = on_progress

    def of(self, job: int) -> OnProgress:
        return lambda done, _: self.update(job, done)

    def update(self, job: int, done: int) -> None:
        self._done[job] = done
        self._on_progress(sum(self._done.values()), self._total)


def _in_processes(jobs: Sequence[Job], progress: _Progress, processes: int) -> list[Outcome]:
    context = multiprocessing.get_context("spawn")  # the interpreter may have threads
    reports = context.Queue()
    with ProcessPoolExecutor(processes, context, initializer=_keep, initargs=(reports,)) as pool:
        futures = [pool.submit(_reported, number, job) for number, job in enumerate(jobs)]
        waiting = set(futures)
        try:
            while waiting:
                _, waiting = wait(waiting, timeout=POLL_SECONDS)
                with suppress(Empty):
                    while True:
                        progress.update(*reports.get_nowait())
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()  # rather than wait for its simulation
            raise


_reports: Any = None
"""Of a process of the pool: the queue of its progress."""


def _keep(reports: Any) -> None:
    global _reports
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the terminal's Ctrl-C reaches all processes
    _reports = reports


def _reported(number: int, job: Job) -> Outcome:
    """Runs in a process of the pool; reports each percent."""
    reported = 0

    def on_progress(done: int, total: int) -> None:
        nonlocal reported
        if done == total or done - reported >= total / 100:
            reported = done
            _reports.put((number, done))

    return run_job(job, on_progress)
