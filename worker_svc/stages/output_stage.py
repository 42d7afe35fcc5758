"""Output stage of rank 0: decides which rows end their request, and appends the step's result (T5).

Runs in the thread of that stage.
"""

from __future__ import annotations

import logging

import numpy as np
from opentelemetry.trace import Tracer

from albireo.contract.codec import ended_to_proto
from albireo.contract.keys import Keys
from albireo.contract.plan import Finish, Plan
from albireo.contract.result_rows import columns
from albireo.contract.tier_codec import contents_to_proto, lost_to_proto, read_to_proto
from albireo.runtime.clock import Clock
from albireo.store.interface import LAST_STEP, EntryId, Fenced, OpenStore
from albireo.v1 import log_pb2 as log
from worker_svc.buffers.arrays import Ints
from worker_svc.runner.interface import HostOutput
from worker_svc.runner.tier_report import TierReport
from worker_svc.stages.finish import FinishDetector
from worker_svc.stages.step import ComputedStep
from worker_svc.telemetry.token_spans import TokenSpans

logger = logging.getLogger(__name__)


class OutputStage:
    """Turns computed steps into entries of the results log, one append a step."""

    def __init__(
        self,
        open_store: OpenStore,
        keys: Keys,
        clock: Clock,
        *,
        incarnation: str,
        keep: int,
        max_seqs: int,
        eos_ids: frozenset[int],
        max_model_len: int,
        tracer: Tracer,
    ) -> None:
        self._results = open_store().log(keys.results(incarnation), keep=keep)
        self._clock = clock
        self._detector = FinishDetector(max_seqs, eos_ids=eos_ids, max_model_len=max_model_len)
        self._spans = TokenSpans(tracer)
        self._appended = 0  # ns of the Unix clock at which the last result was in the log

    def put(self, step: ComputedStep, output: HostOutput) -> None:
        """Appends the result of a step; ``output`` is that of ``step.output``, on the host."""
        began = self._clock.time_ns()
        self._spans.release(step.plan, self._detector.outputs)
        entry, slots, finishes = self._result(step.plan, output)
        timing = entry.result.timing
        timing.CopyFrom(step.timing)
        timing.forward_begin, timing.sampling_begin, timing.sampling_end = step.output.timestamps()
        timing.output_begin, timing.previous_appended = began, self._appended
        if output.tiers is not None:
            _add_tiers(entry.result, output.tiers)
        self._append(step.plan, entry)
        self._appended = self._clock.time_ns()
        self._spans.step(step.plan, timing, slots, finishes, self._detector.outputs)

    def close(self) -> None:
        """No more steps come. In the thread that puts them."""
        self._spans.close()

    def _append(self, plan: Plan, entry: log.ResultEntry) -> None:
        try:
            self._results.append(EntryId(plan.epoch, plan.step), entry.SerializeToString())
        except Fenced:
            last = EntryId.parse(self._results.last())
            if last.epoch == plan.epoch and last.step != LAST_STEP:
                raise
            # While this step ran the group was closed, or a later epoch was opened; the plans say which.
            logger.info("result of step %d-%d came after its end", plan.epoch, plan.step)

    def _result(self, plan: Plan, output: HostOutput) -> tuple[log.ResultEntry, Ints, bytearray]:
        """Also the slots and finishes of its rows, in forms that are quicker to read than the message's."""
        admitted = [self._detector.admit(admission) for admission in plan.admissions]
        counted, finishes, prompts = self._detector.advance(output)
        slots = output.slots[counted]
        entry = log.ResultEntry()
        result = entry.result
        rows = columns(slots, output.incarnations[counted], np.maximum(output.ids[counted], 0), finishes)
        result.slots, result.incarnations = rows["slots"], rows["incarnations"]
        result.ids, result.finishes = rows["ids"], rows["finishes"]
        result.decodes = plan.num_decodes
        result.wasted_rows = len(output.ids) - len(counted)
        if plan.chunks:
            result.prefill_tokens = sum([chunk.count for chunk in plan.chunks])
        if plan.spans:
            streamed = np.isin(slots, [span.slot for span in plan.spans])
            result.streamed.extend(output.incarnations[counted][streamed].tolist())
        if admitted:
            result.admitted.extend(admitted)
        if plan.ended:
            result.ended.extend(ended_to_proto(plan.ended))
        for incarnation in prompts:
            start, logprobs = output.prompt_logprobs[incarnation]
            result.prompt_logprobs.add(incarnation=incarnation, start=start, logprobs=logprobs)
        if output.logprobs:
            for row, sampled in enumerate(counted.tolist()):
                if sampled in output.logprobs and finishes[row] != Finish.ERROR:
                    result.logprobs.append(log.RowLogprobs(row=row, logprobs=output.logprobs[sampled]))
        return entry, slots, finishes


def _add_tiers(result: log.StepResult, report: TierReport) -> None:
    result.unfetched.extend(report.unfetched)
    result.lost.extend(lost_to_proto(report.lost))
    result.read.extend(read_to_proto(report.read))
    result.contents.extend(contents_to_proto(report.contents))
    result.contents_end = report.contents_end
    result.timing.kv_wait = report.kv_wait_ns
    result.timing.stream_wait = report.stream_wait_ns
    result.timing.transfers.extend(report.transfers)
