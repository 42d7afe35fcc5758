"""Finish detection: which rows of a step end their request, and which came after the end.

The output stage of rank 0 calls it, in the thread of that stage.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from albireo.contract.plan import Admission, Finish, SamplingParams, finish_of
from albireo.v1 import log_pb2 as log
from worker_svc.buffers.arrays import Ints
from worker_svc.runner.interface import HostOutput
from worker_svc.sampling.failed import FAILED


class FinishDetector:
    """The finish decision of every row, slot by slot.

    Nearly all rows go on. Arrays sort these out at once; only rows that may end (their length is reached, or
    they drew an id that ends some request) are decided one by one, by ``finish_of`` of the contract.
    """

    def __init__(self, max_seqs: int, *, eos_ids: frozenset[int], max_model_len: int) -> None:
        self._eos_ids = eos_ids
        self._max_model_len = max_model_len
        self._incarnations = np.full(max_seqs, -1, dtype=np.int64)  # -1: none, finished, or without its KV
        self.outputs = np.zeros(max_seqs, dtype=np.int64)  # tokens of each slot's request so far
        self._prompts = np.zeros(max_seqs, dtype=np.int64)
        self._ends_at = np.zeros(max_seqs, dtype=np.int64)  # number of outputs with which the length ends it
        self._sampling = [SamplingParams(max_tokens=1, seed=0)] * max_seqs
        self._nan_prompts: set[int] = set()  # slots where a log-probability of the prompt was NaN
        self._stop_ids: Counter[int] = Counter()  # in how many slots' ``_sampling`` each one is
        self._end_ids = eos_ids | {FAILED}  # with the stop ids: a row that drew another one goes on

    def admit(self, admission: Admission) -> log.Admitted:
        """A request takes a slot; whatever was there before is over."""
        slot, sampling = admission.slot, admission.sampling
        prompt = len(admission.tokens) - admission.num_outputs
        self._incarnations[slot] = admission.incarnation
        self.outputs[slot] = admission.num_outputs
        self._prompts[slot] = prompt
        self._ends_at[slot] = min(sampling.max_tokens, self._max_model_len - prompt)
        self._set_sampling(slot, sampling)
        self._nan_prompts.discard(slot)
        return log.Admitted(
            request_id=admission.request_id,
            incarnation=admission.incarnation,
            num_outputs=admission.num_outputs,
            num_cached=admission.num_cached,
        )

    def advance(self, output: HostOutput) -> tuple[Ints, bytearray, list[int]]:
        """Entries of ``output`` that count, the Finish of each, and the incarnations whose log-probabilities
        of the prompt count. The others came after an end, or are of requests that lack KV."""
        if output.tiers is not None and output.tiers.unfetched:
            self._incarnations[np.isin(self._incarnations, output.tiers.unfetched)] = -1
        prompts = self._prompts_that_count(output)
        (counted,) = (self._incarnations[output.slots] == output.incarnations).nonzero()
        slots, ids = output.slots[counted], output.ids[counted]
        if self._nan_prompts:
            ids[np.isin(slots, list(self._nan_prompts))] = FAILED
        self.outputs[slots] = outputs = self.outputs[slots] + 1
        may_end = outputs >= self._ends_at[slots]
        if not self._end_ids.isdisjoint(ids.tolist()):
            may_end |= np.isin(ids, list(self._end_ids))
        finishes = bytearray(len(counted))  # Finish.NONE is 0
        for row in may_end.nonzero()[0].tolist():
            slot = int(slots[row])
            finishes[row] = finish = self._finish(slot, int(ids[row]))
            if finish:
                self._incarnations[slot] = -1
        return counted, finishes, prompts

    def _prompts_that_count(self, output: HostOutput) -> list[int]:
        """Their incarnations. With a NaN among its log-probabilities a prompt does not: its row ends with an
        error."""
        found = []
        for incarnation, (_, logprobs) in output.prompt_logprobs.items():
            slots = np.flatnonzero(self._incarnations == incarnation).tolist()
            if any(math.isnan(token.logprob) for token in logprobs):
                self._nan_prompts.update(slots)
            elif slots:
                found.append(incarnation)
        return found

    def _set_sampling(self, slot: int, sampling: SamplingParams) -> None:
        before, self._sampling[slot] = self._sampling[slot], sampling
        if before.stop_ids != sampling.stop_ids:
            self._stop_ids.subtract(before.stop_ids)
            self._stop_ids.update(sampling.stop_ids)
            self._end_ids = self._eos_ids | {FAILED} | (+self._stop_ids).keys()

    def _finish(self, slot: int, token: int) -> int:
        if token == FAILED:
            return int(Finish.ERROR)
        outputs = int(self.outputs[slot])
        return int(
            finish_of(
                self._sampling[slot],
                token,
                outputs,
                int(self._prompts[slot]) + outputs,
                eos_ids=self._eos_ids,
                max_model_len=self._max_model_len,
            )
        )
