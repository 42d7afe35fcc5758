"""Random histories of the core, at each look-ahead."""

from __future__ import annotations

from .machine import CoreMachine, explore


class SynchronousMachine(CoreMachine):
    max_in_flight = 1


class OneAheadMachine(CoreMachine):
    max_in_flight = 2


class TwoAheadMachine(CoreMachine):
    max_in_flight = 3


class FourAheadMachine(CoreMachine):
    max_in_flight = 5


class ManyGroupsMachine(CoreMachine):
    max_in_flight = 2
    max_groups = 3


TestSynchronous = explore(SynchronousMachine)
TestOneAhead = explore(OneAheadMachine)
TestTwoAhead = explore(TwoAheadMachine)
TestFourAhead = explore(FourAheadMachine)
TestManyGroups = explore(ManyGroupsMachine)
