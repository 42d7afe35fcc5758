"""The loads of a calibration."""

from __future__ import annotations

import asyncio

import pytest

from albireo.local.ports import free_port
from albireo.planning.calibration.loads import cut, full_loads, quick_loads, sampling_loads, serve
from albireo.planning.workload import Workload


@pytest.mark.parametrize("loads", [full_loads(64), full_loads(16), full_loads(256), quick_loads(16)])
def test_loads_show_every_term(loads: list[Workload]) -> None:
    kinds = {load.sampling for load in loads[1:]}
    assert kinds == {"greedy", "drawn", "penalized"}
    prompts = [request.prompt for load in loads for request in load.requests]
    assert min(prompts) <= 32
    assert max(prompts) >= 512
    decoding = {load.concurrency for load in loads if load.requests[0].outputs > 1}
    assert 1 in decoding
    assert max(decoding) >= 16
    assert any(len(load.requests) > load.concurrency > 1 for load in loads[1:])  # chunks join decoding rows


def test_loads_use_no_more_slots_than_there_are() -> None:
    for slots in (16, 64, 256):
        assert max(load.concurrency for load in full_loads(slots)) == slots


def test_each_load_has_a_name_of_its_own() -> None:
    for loads in (full_loads(64), quick_loads(16)):
        assert len({load.name for load in loads}) == len(loads)


def test_a_cut_load_fits_the_context() -> None:
    for load in full_loads(64):
        small = cut(load, 100)
        assert small.longest <= 100
        assert len(small.requests) == len(load.requests)
        assert all(request.prompt > 0 and request.outputs > 0 for request in small.requests)
    assert cut(full_loads(64)[1], 100) == full_loads(64)[1]


def test_sampling_is_shown_by_rows_that_decode_from_short_contexts() -> None:
    loads = full_loads(64)
    chosen = sampling_loads(loads)
    assert chosen[0] == loads[0]  # warms up
    assert {load.sampling for load in chosen[1:]} == {"greedy", "drawn", "penalized"}
    assert max(load.longest for load in chosen[1:]) <= 64


def test_a_request_that_fails_ends_the_load_with_its_name_and_the_reason() -> None:
    load = quick_loads(16)[1]
    with pytest.raises(RuntimeError, match=f"{load.name}: UNAVAILABLE: "):
        asyncio.run(serve(f"127.0.0.1:{free_port('127.0.0.1')}", load, vocab_size=100, salt=""))
