"""One rank of a worker group: three stages joined by bounded queues.

input (thread) -> compute (main thread) -> output (thread, rank 0). Every rank reads the plan log
itself; rank 0 alone registers the group and writes results.

In synchronous mode the same stages run one after the other in the main thread, and the ids of a step go
to the next by way of the host.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any, NoReturn

from albireo.contract.keys import Keys
from albireo.contract.tier_codec import shapes_to_proto
from albireo.runtime.clock import SYSTEM_CLOCK, Clock, Event, Thread
from albireo.runtime.process import Serving
from albireo.store.interface import Fenced, OpenStore
from albireo.store.redis_store import RedisStore
from albireo.telemetry import OFF, Telemetry
from albireo.v1 import log_pb2 as log
from worker_svc.collectives.interface import Ranks
from worker_svc.cost.speed import StepSpeed
from worker_svc.runner.interface import HostOutput, Runner
from worker_svc.settings import WorkerSettings
from worker_svc.stages.ending import Ending
from worker_svc.stages.heartbeat import Heartbeat
from worker_svc.stages.input_stage import InputStage
from worker_svc.stages.output_stage import OutputStage
from worker_svc.stages.queue import StageQueue
from worker_svc.stages.registration import Registration
from worker_svc.stages.renewal import Intervals, Renewal
from worker_svc.stages.step import ComputedStep, StagedStep
from worker_svc.stages.step_watch import StepWatch
from worker_svc.stages.thread import exit_process, start_stage
from worker_svc.telemetry.gpu import GpuReader
from worker_svc.telemetry.meters import WorkerMeters

logger = logging.getLogger(__name__)

# One step running and one staged behind it: the ring of staging buffers is larger than that.
QUEUE_SIZE = 2
OUTPUT_SECONDS = 3.0
"""How long a rank that ends waits for its output stage, which may be in the middle of an append."""


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
        self._ending = Ending.of(stop, clock)
        self._keys = keys = Keys(settings.model_name)
        self._clock = clock
        self._open_store = open_store or (lambda: RedisStore.open(settings.redis_address, self._keys))
        self._abort = abort
        self._incarnation = incarnation.hex
        self._on_thread = on_thread
        self._store = self._open_store()
        self._watch = StepWatch(clock)
        self._tracer = telemetry.tracer
        gpu_key = keys.gpu(self._incarnation, group.rank)
        self._meters = WorkerMeters(telemetry, runner, self._watch, self._store, gpu, gpu_key)
        over = self._ending.over
        self._staged: StageQueue[StagedStep] = StageQueue(QUEUE_SIZE, over, clock)
        self._computed: StageQueue[ComputedStep] = StageQueue(QUEUE_SIZE, over, clock)

    def run(self) -> None:
        """Raises Fenced, and what else a step raises, unless the rank was asked to stop."""
        ending, first = self._ending, self._group.rank == 0
        speed = self._runner.measure()
        input_stage = InputStage(
            self._open_store,
            self._keys,
            self._clock,
            incarnation=self._incarnation,
            runner=self._runner,
            on_epoch=self._on_epoch,
            until=(lambda: ending.asked.is_set() or ending.over.is_set()) if first else ending.over.is_set,
        )
        self._group.barrier()  # every rank is ready for plans
        registration = self._register(speed) if first else None
        self._start("renewal", lambda: self._renew(registration, input_stage))
        output_stage = self._output_stage() if first else None
        try:
            if self._settings.synchronous:
                self._run_in_turn(input_stage, output_stage)
            else:
                self._run_overlapped(input_stage, output_stage)
            if registration is not None and not ending.over.is_set():
                registration.leave()
        except Fenced:
            if not ending.asked.is_set():
                raise
        finally:
            ending.over.set()
            if registration is not None:
                registration.release()
            ending.done.set()

    def _run_overlapped(self, input_stage: InputStage, output_stage: OutputStage | None) -> None:
        """This thread is the compute stage; it waits for nothing but staged steps."""
        self._start("input", lambda: self._stage(input_stage))
        output = self._start("output", lambda: self._put_out(output_stage))
        while (step := self._staged.get()) is not None:
            self._computed.put(self._compute(step))
        self._computed.end()
        output.join(OUTPUT_SECONDS)
        if output.is_alive():
            self._ending.over.set()

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
        self._staged.end()

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
        self._watch.begin(step.plan.step)
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
            incarnation=self._incarnation,
            keep=self._settings.log_entries,
            max_seqs=self._runner.shape.max_seqs,
            eos_ids=self._runner.config.eos_ids,
            max_model_len=self._runner.shape.max_model_len,
            tracer=self._tracer,
        )

    def _register(self, speed: StepSpeed) -> Registration:
        runner, settings = self._runner, self._settings
        info = log.GroupInfo(
            incarnation=self._incarnation,
            num_blocks=runner.shape.num_blocks,
            max_seqs=runner.shape.max_seqs,
            max_model_len=runner.shape.max_model_len,
            num_layers=runner.shape.num_layers,
            tp=self._group.size,
            device=settings.device,
            dtype=settings.dtype,
            architecture=runner.config.architecture,
            vocab_size=runner.config.vocab_size,
            eos_token_ids=sorted(runner.config.eos_ids),
            fingerprint=self._fingerprint,
            name=settings.group,
            step_seconds=speed.step_seconds,
            prefill_token_seconds=speed.prefill_token_seconds,
            tiers=shapes_to_proto(runner.shape.tiers),
        )
        registration = Registration(self._open_store(), self._keys, info, ttl=settings.group_ttl_seconds)
        logger.info(
            "group %s of %d ranks: %d blocks, %.3g ms a step, %.3g ms more for each token of a prompt",
            self._incarnation,
            self._group.size,
            info.num_blocks,
            speed.step_seconds * 1e3,
            speed.prefill_token_seconds * 1e3,
        )
        return registration

    def _on_epoch(self) -> None:
        if self._health is not None:
            self._health.set(serving=True)

    def _renew(self, registration: Registration | None, input_stage: InputStage) -> None:
        settings, keys, store = self._settings, self._keys, self._store
        beats = keys.rank(self._incarnation, self._group.rank)
        asynchronous = settings.device == "cuda"
        Renewal(
            registration,
            Heartbeat(store, beats, self._watch, self._group, self._clock, asynchronous=asynchronous),
            store.log(keys.plans(self._incarnation)),
            self._watch,
            self._ending,
            self._clock,
            Intervals(settings.beat_seconds, settings.group_ttl_seconds / 6, settings.step_timeout_seconds),
            opened=lambda: input_stage.opened,
            on_renewal=self._meters.report,
            abort=self._abort,
        ).run()

    def _start(self, name: str, body: Callable[[], None]) -> Thread:
        return start_stage(name, body, self._ending, self._clock, self._abort)
