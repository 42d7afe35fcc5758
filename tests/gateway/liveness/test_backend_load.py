"""How busy a backend is, by what its scheduler publishes and what this gateway has sent."""

from __future__ import annotations

from albireo.v1.control_pb2 import Load
from gateway.liveness.backend_load import BackendLoad


def test_what_was_sent_counts_until_the_next_load() -> None:
    found = BackendLoad()
    data = Load(slots_total=4, running=2, waiting=1).SerializeToString()
    found.update(data)
    found.sent(3)
    assert (found.requests, found.per_slot) == (6, 1.5)
    found.update(data)  # the same one, read again
    assert found.requests == 6
    found.update(Load(slots_total=4, running=4).SerializeToString())
    assert found.requests == 4


def test_without_slots_or_a_load_it_is_infinitely_busy() -> None:
    found = BackendLoad()
    assert found.per_slot == float("inf")
    found.update(Load(slots_total=4).SerializeToString())
    assert found.per_slot == 0
    for gone in (None, b"\xff", Load().SerializeToString()):
        found.update(gone)
        assert found.per_slot == float("inf")
