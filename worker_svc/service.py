"""One rank of a worker group: three stages joined by bounded queues.

input (thread) -> compute (main thread) -> output (thread, rank 0). Every rank reads the plan log
itself; rank 0 alone announces the group and writes results.

In synchronous mode the same stages run one after the other in the main thread, and the ids of a step go
to the next by way of the host.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any, NoReturn

from albireo.contract.keys import Keys
from albireo.runtime.clock import SYSTEM_CLOCK, Clock, Event, Thread
from albireo.runtime.process import Serving
from albireo.store.interface import Lease, OpenStore
from albireo.store.redis_store import RedisStore
from albireo.telemetry import OFF, Telemetry
from albireo.v1 import log_pb2 as log
from worker_svc.collectives.interface import Ranks
from worker_svc.runner.interface import HostOutput, Runner
from worker_svc.settings import WorkerSettings
from worker_svc.stages.input_stage import InputStage
from worker_svc.stages.output_stage import OutputStage
from worker_svc.stages.queue import StageQueue
from worker_svc.stages.renewal import StepWatch, renew_lease
from worker_svc.stages.step import ComputedStep, StagedStep
from worker_svc.stages.thread import exit_process, start_stage
from worker_svc.telemetry.gpu import GpuReader
from worker_svc.telemetry.meters import WorkerMeters

logger = logging.getLogger(__name__)

# One step running and one staged behind it: the ring of staging buffers is larger than that.
QUEUE_SIZE = 2
OUTPUT_SECONDS = 3.0
"""How long a rank that stops waits for its output stage, which may be in the middle of an append."""


class WorkerService:
    """Serves plans with ``runner`` until stopped."""

    def __init__(
        self,
        settings: WorkerSettings,
        group: Ranks,
        runner: Runner[Any],
        fingerprint: str,
        health: Serving | None,
        stop: Event,
        telemetry: Telemetry = OFF,
        gpu: GpuReader | None = None,
        *,
        incarnation: uuid.UUID,
        clock: Clock = SYSTEM_CLOCK,
        open_store: OpenStore | None = None,
        abort: Callable[[], NoReturn] = exit_process,
        on_thread: Callable[[], None] = lambda: None,
    ) -> None:
        """``fingerprint``: of the checkpoint, announced to gateways. ``health`` is the endpoint of the first
        rank on a machine, None on the others; ``gpu`` reads the rank's GPU, if it has one.

        ``incarnation`` names this life of the group; the ranks have agreed on it. ``open_store``: Redis at
        the address of ``settings`` by default. ``abort`` ends a rank that failed. ``on_thread`` is called
        first in the threads of the input and the output stage."""
        self._settings = settings
        self._group = group
        self._runner = runner
        self._fingerprint = fingerprint
        self._health = health
        self._stop = stop
        self._keys = Keys(settings.model_name, settings.group)
        self._clock = clock
        self._open_store = open_store or (lambda: RedisStore.open(settings.redis_address, self._keys))
        self._abort = abort
        self._incarnation = incarnation.hex
        self._on_thread = on_thread
        self._store = self._open_store()
        self._watch = StepWatch(clock)
        self._tracer = telemetry.tracer
        self._meters = WorkerMeters(telemetry, runner, self._watch, self._store, self._keys, gpu, group.rank)
        self._staged: StageQueue[StagedStep] = StageQueue(QUEUE_SIZE, stop, clock)
        self._computed: StageQueue[ComputedStep] = StageQueue(QUEUE_SIZE, stop, clock)

    def run(self) -> None:
        # Every rank knows its place in the log before the group is announced, so none misses its epoch.
        after = self._store.log(self._keys.plans).last()
        self._group.barrier()
        lease = self._announce() if self._group.rank == 0 else None
        input_stage = InputStage(
            self._open_store,
            self._keys,
            self._clock,
            incarnation=self._incarnation,
            after=after,
            runner=self._runner,
            on_epoch=self._on_epoch,
            stop=self._stop,
        )
        self._start("lease renewal", lambda: self._renew(lease))
        output_stage = self._output_stage() if self._group.rank == 0 else None
        try:
            if self._settings.synchronous:
                self._run_in_turn(input_stage, output_stage)
            else:
                self._run_overlapped(input_stage, output_stage)
        finally:
            if lease is not None:
                lease.release()

    def _run_overlapped(self, input_stage: InputStage, output_stage: OutputStage | None) -> None:
        """This thread is the compute stage; it waits for nothing but staged steps."""
        self._start("input", lambda: self._stage(input_stage))
        output = self._start("output", lambda: self._put_out(output_stage))
        try:
            while (step := self._staged.get()) is not None:
                self._computed.put(self._compute(step))
        finally:
            if self._stop.is_set():  # else this stage failed, and the other does not end
                output.join(OUTPUT_SECONDS)

    def _run_in_turn(self, input_stage: InputStage, output_stage: OutputStage | None) -> None:
        for step in input_stage.steps():
            computed = self._compute(step)
            output = self._fetch(computed)
            self._runner.feed_back(output)
            if output_stage is not None:
                output_stage.put(computed, output)
        if output_stage is not None:
            output_stage.close()

    def _stage(self, input_stage: InputStage) -> None:
        self._on_thread()
        for step in input_stage.steps():
            self._staged.put(step)

    def _put_out(self, output_stage: OutputStage | None) -> None:
        """On every rank, so that each sees whether its own steps come to an end."""
        self._on_thread()
        while (computed := self._computed.get()) is not None:
            output = self._fetch(computed)
            if output_stage is not None:
                output_stage.put(computed, output)
        if output_stage is not None:
            output_stage.close()

    def _compute(self, step: StagedStep) -> ComputedStep:
        """Launches one step (T3 and T4)."""
        self._watch.begin()
        return ComputedStep(step.plan, self._runner.execute(step.batch), step.timing)

    def _fetch(self, computed: ComputedStep) -> HostOutput:
        """Waits until the step has run."""
        output = computed.output.to_host()
        self._watch.end()
        return output

    def _output_stage(self) -> OutputStage:
        return OutputStage(
            self._open_store,
            self._keys,
            self._clock,
            keep=self._settings.log_entries,
            max_seqs=self._runner.shape.max_seqs,
            eos_ids=self._runner.config.eos_ids,
            max_model_len=self._runner.shape.max_model_len,
            tracer=self._tracer,
        )

    def _announce(self) -> Lease:
        """Takes the group's key; waits until that of an earlier life has expired."""
        runner = self._runner
        info = log.GroupInfo(
            incarnation=self._incarnation,
            num_blocks=runner.shape.num_blocks,
            max_seqs=runner.shape.max_seqs,
            max_model_len=runner.shape.max_model_len,
            tp=self._group.size,
            device=self._settings.device,
            dtype=self._settings.dtype,
            architecture=runner.config.architecture,
            vocab_size=runner.config.vocab_size,
            eos_token_ids=sorted(runner.config.eos_ids),
            fingerprint=self._fingerprint,
        )
        lease = self._open_store().lease(
            self._keys.group, info.SerializeToString(), ttl=self._settings.group_ttl_seconds
        )
        if not lease.acquire():
            logger.info("waits for the group's name: an earlier life has not expired, or another has it")
            while not lease.acquire() and not self._stop.wait(0.1):
                pass
        size, blocks = self._group.size, runner.shape.num_blocks
        logger.info("group %s of %d ranks: %d blocks", self._incarnation, size, blocks)
        return lease

    def _on_epoch(self) -> None:
        if self._health is not None:
            self._health.set(serving=True)

    def _renew(self, lease: Lease | None) -> None:
        settings = self._settings
        renew_lease(
            lease,
            self._watch,
            self._stop,
            step_timeout=settings.step_timeout_seconds,
            every=settings.group_ttl_seconds / 6,
            on_renewal=self._meters.report,
            abort=self._abort,
        )

    def _start(self, name: str, body: Callable[[], None]) -> Thread:
        return start_stage(name, body, self._stop, self._clock, self._abort)
