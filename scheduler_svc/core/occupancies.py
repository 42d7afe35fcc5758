"""The occupancies of the slots of one group, by slot and by phase.

The ledger changes it.
"""

from __future__ import annotations

from collections.abc import Mapping

from albireo.contract.plan import StepResult, table_digest
from scheduler_svc.core.decode_steps import DecodeSteps
from scheduler_svc.core.errors import ProtocolError
from scheduler_svc.core.request import Occupancy, Phase


class Occupancies:
    """Those that hold a slot: each in the phase that it says."""

    def __init__(self) -> None:
        self.by_slot: dict[int, Occupancy] = {}
        self.phases: dict[Phase, dict[int, Occupancy]] = {
            phase: {} for phase in Phase if phase is not Phase.RELEASED
        }  # the same ones by phase, then by slot
        self.receiving: dict[int, Occupancy] = {}  # by incarnation: those whose results count
        self._steps = DecodeSteps()

    @property
    def num_running(self) -> int:
        """How many have not finished."""
        return len(self.by_slot) - len(self.phases[Phase.FINISHED])

    def digest(self) -> int:
        """``Plan.digest`` of the last published step."""
        return table_digest(
            (o.slot, o.incarnation, o.scheduled, len(o.blocks), o.blocks[-1] if o.blocks else -1)
            for _, o in sorted(self.by_slot.items())
        )

    def find(self, slot: int, phase: Phase | None = None) -> Occupancy:
        """That of a slot, in ``phase``. Raises ProtocolError if there is none."""
        among: Mapping[int, Occupancy] = self.phases[phase] if phase else self.by_slot
        occupancy = among.get(slot)
        if occupancy is None:
            raise ProtocolError(f"slot {slot} is not {phase.name if phase else 'occupied'}")
        return occupancy

    def add(self, occupancy: Occupancy) -> None:
        """A new one takes its slot."""
        self.receiving[occupancy.incarnation] = occupancy
        self.by_slot[occupancy.slot] = self.phases[occupancy.phase][occupancy.slot] = occupancy

    def move(self, occupancy: Occupancy, phase: Phase) -> None:
        """One goes into another phase. With RELEASED it gives up its slot."""
        del self.phases[occupancy.phase][occupancy.slot]
        self._steps.end(occupancy)
        occupancy.phase = phase
        if phase is Phase.RELEASED:
            del self.by_slot[occupancy.slot]
        else:
            self.phases[phase][occupancy.slot] = occupancy
        if phase is Phase.DECODING:
            self._steps.begin(occupancy)

    def stop_receiving(self, occupancy: Occupancy) -> None:
        """Further results of one do not count."""
        del self.receiving[occupancy.incarnation]
        occupancy.request.occupancy = None

    def append_tokens(self, result: StepResult) -> int:
        """What a step has sampled. Returns how many of the tokens do not count."""
        receiving, late = self.receiving, 0
        for incarnation, token in zip(result.incarnations, result.ids, strict=True):
            row = receiving.get(incarnation)
            if row is None:
                late += 1
            else:
                row.tokens.append(token)
        return late

    def append_blocks(self, occupancy: Occupancy, blocks: tuple[int, ...]) -> None:
        """One gets blocks."""
        occupancy.append_blocks(blocks)
        self._steps.expect(occupancy)

    def publish(self, step: int) -> list[Occupancy]:
        """All that decode run a row in the next step. Returns those that need a decision before another."""
        return self._steps.publish(step, self.phases[Phase.DECODING])
