"""The load of a model in several cells."""

from __future__ import annotations

from albireo.v1.control_pb2 import Load
from gateway.models.load import joined


def test_every_field_of_a_load_is_joined() -> None:
    full = Load(
        **{field.name: 3 for field in Load.DESCRIPTOR.fields if not field.is_repeated},  # type: ignore[arg-type]
        integrity_violations=["slot 1"],
        waiting_by_tenant={"a": 3},
    )
    full.groups.add(name="g")
    full.gpus.add(rank=1)
    assert {field.name for field, _ in full.ListFields()} == {field.name for field in Load.DESCRIPTOR.fields}
    both = joined([full, full])
    assert {field.name for field, _ in both.ListFields()} == {field.name for field, _ in full.ListFields()}
    assert (both.waiting, both.epoch, both.wait_seconds, both.waiting_by_tenant["a"]) == (6, 3, 3.0, 6)
    assert (len(both.groups), len(both.gpus)) == (2, 2)


def test_a_wait_that_is_not_known_in_one_cell_is_that_of_the_other() -> None:
    assert joined([Load(wait_seconds=-1), Load(wait_seconds=2)]).wait_seconds == 2
    assert joined([Load(wait_seconds=-1), Load(wait_seconds=-1)]).wait_seconds == -1
