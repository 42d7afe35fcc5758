"""What results say of copies and of what layers read."""

from __future__ import annotations

from albireo.v1 import control_pb2 as control
from worker_svc.kv_tiers.record import TRANSFERS, TransferRecord


def streamed(tier: str, begin: int, end: int, size: int) -> control.KvTransfer:
    return control.KvTransfer(tier=tier, begin=begin, end=end, bytes=size, streamed=True)


def taken(record: TransferRecord) -> list[control.KvTransfer]:
    found = record.take()
    return [] if found is None else list(found.transfers)


def test_the_pieces_of_a_layer_are_one_transfer() -> None:
    record = TransferRecord(["host", "disk"])
    for layer, begin, end in ((0, 1, 2), (0, 2, 4), (1, 4, 5)):
        record.streamed(1, layer, begin=begin, end=end, size=10)
    record.copied(0, write=True, begin=3, end=6, size=7)
    assert taken(record) == [
        control.KvTransfer(tier="host", write=True, begin=3, end=6, bytes=7),
        streamed("disk", 1, 4, 20),
        streamed("disk", 4, 5, 10),
    ]
    assert record.take() is None
    record.streamed(1, 1, begin=8, end=9, size=3)  # of the same layer, and of the next result
    assert taken(record) == [streamed("disk", 8, 9, 3)]


def test_however_much_is_streamed_a_result_is_short_and_has_all_bytes() -> None:
    record = TransferRecord(["host", "disk"])
    count = 4 * TRANSFERS
    for layer in range(count):
        record.streamed(0, layer, begin=layer, end=layer + 1, size=1)
        record.streamed(1, layer, begin=layer, end=layer + 1, size=2)
    found = taken(record)
    assert len(found) == TRANSFERS
    for tier, size in (("host", count), ("disk", 2 * count)):
        assert sum(transfer.bytes for transfer in found if transfer.tier == tier) == size
        assert max(transfer.end for transfer in found if transfer.tier == tier) == count
