"""Output stage of rank 0: decides which rows end their request, and appends the step's result (T5)."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from albireo.codec import ended_to_proto
from albireo.keys import Keys
from albireo.logs import EntryId, Fenced, StepLog, connect, last_id
from albireo.plan import Admission, Finish, Plan, SamplingParams, finish_of
from albireo.v1 import log_pb2 as log
from worker_svc.runner import HostOutput
from worker_svc.stage import ComputedStep, StageQueue

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Row:
    """What the finish decision needs of the request in a slot."""

    incarnation: int
    sampling: SamplingParams
    num_outputs: int
    num_tokens: int
    finished: bool = False


class OutputStage:
    """Turns computed steps into entries of the results log, one append a step."""

    def __init__(
        self,
        redis_url: str,
        keys: Keys,
        *,
        keep: int,
        eos_ids: frozenset[int],
        max_model_len: int,
        computed: StageQueue[ComputedStep],
    ) -> None:
        self._redis = connect(redis_url)
        self._key = keys.results
        self._results = StepLog(self._redis, keys.results, keep=keep)
        self._eos_ids = eos_ids
        self._max_model_len = max_model_len
        self._computed = computed
        self._rows: dict[int, _Row] = {}  # by slot; a stale one is replaced by the slot's next admission

    def run(self) -> None:
        while (step := self._computed.get()) is not None:
            self._append(step.plan, self._result(step.plan, step.output.to_host()))

    def _append(self, plan: Plan, result: log.StepResult) -> None:
        data = log.ResultEntry(result=result).SerializeToString()
        try:
            self._results.append(EntryId(plan.epoch, plan.step), data)
        except Fenced:
            if EntryId.parse(last_id(self._redis, self._key)).epoch == plan.epoch:
                raise
            # The epoch was closed while this step ran; the input stage learns what follows.
            logger.info("result of step %d-%d came after its epoch", plan.epoch, plan.step)

    def _result(self, plan: Plan, output: HostOutput) -> log.StepResult:
        result = log.StepResult(
            admitted=[self._admit(admission) for admission in plan.admissions],
            ended=ended_to_proto(plan.ended),
        )
        for index, (slot, incarnation, token) in enumerate(
            zip(output.slots, output.incarnations, output.ids, strict=True)
        ):
            row = self._rows[slot]
            if row.incarnation != incarnation or row.finished:
                continue  # a row that was planned before the end was known
            finish = self._advance(row, token)
            if finish is not Finish.ERROR and row.sampling.logprobs >= 0:
                result.logprobs.append(log.RowLogprobs(row=len(result.ids), logprobs=output.logprobs[index]))
            result.slots.append(slot)
            result.incarnations.append(incarnation)
            result.ids.append(max(token, 0))
            result.finishes.append(finish)
        return result

    def _admit(self, admission: Admission) -> log.Admitted:
        self._rows[admission.slot] = _Row(
            admission.incarnation, admission.sampling, admission.num_outputs, len(admission.tokens)
        )
        return log.Admitted(
            request_id=admission.request_id,
            incarnation=admission.incarnation,
            num_outputs=admission.num_outputs,
            num_cached=admission.num_cached,
        )

    def _advance(self, row: _Row, token: int) -> Finish:
        if token < 0:  # the sampler's mark for logits that are not numbers
            row.finished = True
            return Finish.ERROR
        row.num_outputs += 1
        row.num_tokens += 1
        finish = finish_of(
            row.sampling,
            token,
            row.num_outputs,
            row.num_tokens,
            eos_ids=self._eos_ids,
            max_model_len=self._max_model_len,
        )
        row.finished = finish is not Finish.NONE
        return finish
