"""The steps of a running stack as measurements: what each step computed, and how long its parts took.

Read from the logs of the group, plans and results, after each load; the calibration fits to them.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.contract import codec
from albireo.contract.keys import Keys
from albireo.store.interface import EntryId, Store
from albireo.telemetry.step_times import published_at
from albireo.v1 import control_pb2 as control
from albireo.v1 import log_pb2 as log
from worker_svc.batch.slot_table import SlotTable
from worker_svc.cost.work import StepWork
from worker_svc.runner.step_work import step_work
from worker_svc.sampling.layout import SamplingPolicy

QUIET_SECONDS = 0.3
"""Once no entry has come for so long after a load, all its steps are in the logs."""


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """One step of a real group; durations in seconds."""

    load: str  # name of the load that it belongs to
    at: float  # when its forward began
    work: StepWork
    parallel: bool  # each rank sampled its share of the rows
    t1: float
    t2: float
    t3: float
    t4: float
    t5: float
    gap: float | None  # from the end of the last step to this one's begin; None where it was staged later


class StepReader:
    """Follows plans and results of one group, as one of its ranks would."""

    def __init__(
        self, store: Store, keys: Keys, group: str, table: SlotTable, policy: SamplingPolicy
    ) -> None:
        """``group``: its incarnation. ``table``, ``policy``: as the group's ranks have them."""
        self._store = store
        self._plans = keys.plans(group)
        self._table = table
        self._policy = policy
        self._after = {self._plans: "0-0", keys.results(group): "0-0"}
        self._work: dict[EntryId, tuple[StepWork, bool]] = {}

    def read(self, load: str) -> list[MeasuredStep]:
        """The steps since the last call, whose load has ended. The last of them is left out: when its result
        was in the log is in the next step's."""
        records: list[tuple[EntryId, control.StepTiming]] = []
        while found := self._store.read(self._after, QUIET_SECONDS):
            for key, entries in found.items():
                self._after[key] = entries[-1][0].decode()
                for entry_id, data in entries:
                    if key == self._plans:
                        self._apply(EntryId.parse(entry_id), data)
                    else:
                        records += _timing(EntryId.parse(entry_id), data)
        steps = [
            self._measured(load, records[i - 1] if i else None, records[i], records[i + 1][1])
            for i in range(len(records) - 1)
        ]
        self._work.clear()
        return steps

    def _apply(self, entry_id: EntryId, data: bytes) -> None:
        entry = log.PlanEntry.FromString(data)
        if entry.WhichOneof("entry") != "plan":
            self._table.reset()
            return
        batch = self._table.apply(codec.plan_from_proto(entry_id.epoch, entry_id.step, entry.plan))
        parallel = self._policy.layout(batch.samples.slots).parallel
        self._work[entry_id] = step_work(batch), parallel

    def _measured(
        self,
        load: str,
        before: tuple[EntryId, control.StepTiming] | None,
        record: tuple[EntryId, control.StepTiming],
        after: control.StepTiming,
    ) -> MeasuredStep:
        entry_id, timing = record
        work, parallel = self._work[entry_id]
        staged_early = before is not None and timing.staged < before[1].sampling_end
        return MeasuredStep(
            load,
            timing.forward_begin / 1e9,
            work,
            parallel,
            t1=(published_at(timing, after) - timing.plan_begin) / 1e9,
            t2=(timing.staged - timing.fetched) / 1e9,
            t3=(timing.sampling_begin - timing.forward_begin) / 1e9,
            t4=(timing.sampling_end - timing.sampling_begin) / 1e9,
            t5=(after.previous_appended - timing.output_begin) / 1e9,
            gap=(timing.forward_begin - before[1].sampling_end) / 1e9 if before and staged_early else None,
        )


def _timing(entry_id: EntryId, data: bytes) -> list[tuple[EntryId, control.StepTiming]]:
    entry = codec.result_from_bytes(data)
    return [(entry_id, entry.result.timing)] if entry.WhichOneof("entry") == "result" else []
