"""Formats of weights and KV: ranks and KV tiers tell them apart."""

from __future__ import annotations

import itertools
from typing import get_args

import torch

from worker_svc.model.formats import AS_THE_MODEL, Formats, KvFormat, WeightFormat

ALL = [Formats(*both) for both in itertools.product(get_args(WeightFormat), get_args(KvFormat))]


def test_ranks_tell_them_apart() -> None:
    assert len({tuple(formats.words()) for formats in ALL}) == len(ALL)


def test_kv_of_one_is_not_taken_for_that_of_another() -> None:
    marks = {formats.mark(dtype) for formats in ALL for dtype in (torch.float32, torch.bfloat16)}
    # A tier knows the type of a cache that has the model's.
    assert len(marks) == 3 + 3 * 2
    assert AS_THE_MODEL.mark(torch.bfloat16) == ""
    assert Formats("fp8").mark(torch.bfloat16) == "-fp8"
