"""Structs of arrays: what is packed on the host comes out as the same struct of tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import pytest
import torch
from torch import Tensor

from worker_svc.buffers.arrays import HostArray
from worker_svc.buffers.structs import A, Packing, Struct, float32, float64, int64


@dataclass(frozen=True, slots=True)
class Row(Struct[A]):
    """A struct within another."""

    first: int
    numbers: Annotated[A, float32("n")]


@dataclass(frozen=True, slots=True)
class Everything(Struct[A]):
    """One field of each kind."""

    ids: Annotated[A, int64("n")]
    table: Annotated[A, int64("n", "m")]
    flag: bool
    rows: tuple[Row[A], ...]
    maybe: Annotated[A | None, float64("k")]
    odd: Annotated[A, float32("m", "k")]
    one: Row[A] | None
    uniforms: Annotated[A, float64("k")]


HOST: Everything[HostArray] = Everything(
    ids=np.arange(3),
    table=np.arange(100, 106).reshape(3, 2),
    flag=True,
    rows=(Row(7, np.array([0.5], dtype=np.float32)), Row(8, np.zeros(0, dtype=np.float32))),
    maybe=None,
    odd=np.array([[1.5], [2.5]], dtype=np.float32),
    one=Row(9, np.array([4.5, 5.5, 6.5], dtype=np.float32)),
    uniforms=np.array([0.25]),
)


def words_of(host: Everything[HostArray]) -> tuple[Packing, Tensor]:
    packing = Packing(host)
    words = torch.full((packing.size + 5,), -1)
    packing.fill(words.numpy()[: packing.size])
    return packing, words


def test_a_part_lies_in_one_span() -> None:
    packing, words = words_of(HOST)
    assert HOST.one is not None
    for part in (HOST.rows[0], HOST.one):
        copied, alone = torch.zeros(3, dtype=torch.int64), Packing(part)
        packed = words[packing.span(part)]
        assert len(packed) == alone.size
        alone.write(copied)
        assert copied[: alone.size].tolist() == packed.tolist()
        assert not copied[alone.size :].any()
    assert packing.span(HOST) == slice(0, packing.size)


def test_the_device_has_the_same_struct_of_views() -> None:
    packing, words = words_of(HOST)
    found = packing.views(Everything[Tensor], words)
    assert found.ids.tolist() == [0, 1, 2]
    assert found.table.tolist() == [[100, 101], [102, 103], [104, 105]]
    assert [(row.first, row.numbers.tolist()) for row in found.rows] == [(7, [0.5]), (8, [])]
    assert (found.flag, found.maybe) == (True, None)
    assert found.odd.tolist() == [[1.5], [2.5]]
    assert found.one is not None
    assert (found.one.first, found.one.numbers.tolist()) == (9, [4.5, 5.5, 6.5])
    assert found.uniforms.tolist() == [0.25]
    dtypes = [tensor.dtype for tensor in (found.ids, found.odd, found.uniforms)]
    assert dtypes == [torch.int64, torch.float32, torch.float64]
    words[:3] = torch.tensor([7, 8, 9])
    assert found.ids.tolist() == [7, 8, 9]


def test_arrays_lie_in_the_order_of_the_fields_each_from_a_whole_word_on() -> None:
    packing, words = words_of(HOST)
    assert words[:9].tolist() == [0, 1, 2, 100, 101, 102, 103, 104, 105]
    assert packing.size == 9 + 1 + 0 + 1 + 2 + 1
    assert words[packing.size :].tolist() == [-1] * 5


def test_structs_of_the_same_shapes_are_packed_alike() -> None:
    packing, _ = words_of(HOST)
    other, words = words_of(replace(HOST, ids=np.array([5, 6, 7])))
    assert other.size == packing.size
    assert packing.views(Everything[Tensor], words).ids.tolist() == [5, 6, 7]


@pytest.mark.parametrize(
    ("host", "message"),
    [
        (replace(HOST, ids=np.zeros(3)), r"Everything.ids: float64 \(3,\)"),
        (replace(HOST, table=np.arange(3)), r"Everything.table: int64 \(3,\)"),
        (replace(HOST, table=np.zeros((2, 2), dtype=np.int64)), "Everything.table: n is 2, not 3"),
        (replace(HOST, one=Row(1, np.zeros(2))), r"Row.numbers: float64 \(2,\)"),
    ],
)
def test_what_is_not_as_declared_is_refused_by_its_name(host: Everything[HostArray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Packing(host)


def test_a_struct_does_not_become_another() -> None:
    packing, words = words_of(HOST)
    with pytest.raises(TypeError, match="Everything cannot become"):
        packing.views(Row[Tensor], words)


def test_a_change_of_all_arrays_leaves_the_rest() -> None:
    found = HOST.map_arrays(lambda array: array[:1])
    assert (found.ids.tolist(), found.flag, found.maybe) == ([0], True, None)
    assert [row.first for row in found.rows] == [7, 8]
