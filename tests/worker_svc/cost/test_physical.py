"""What a step costs on a device: its terms, and how they move with the work and with the TP degree."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker_svc.cost.shapes import QWEN_32B
from worker_svc.cost.device import Device
from worker_svc.cost.physical import PhysicalCost
from worker_svc.cost.work import SpanWork, StepWork

H100 = Device.load("h100")
DEGREES = (1, 2, 4, 8)
counts = st.integers(0, 4096)
works = st.builds(
    StepWork,
    decodes=counts,
    context=st.integers(0, 10**7),
    prefill=counts,
    prefill_pairs=st.integers(0, 10**7),
    greedy=counts,
    drawn=counts,
    penalized=counts,
)
degrees = st.sampled_from(DEGREES)
COUNTS = [field.name for field in fields(StepWork) if field.type == "int"]
MILLI = 1e-3


def cost(tp: int, **efficiency: float) -> PhysicalCost:
    """Qwen2.5-32B on H100, with other efficiencies than the preset's where they are given."""
    tables = tuple(table.model_copy(update=efficiency) for table in H100.efficiency)
    return PhysicalCost(H100.model_copy(update={"efficiency": tables}), QWEN_32B, tp)


@given(work=works, tp=degrees)
def test_the_terms_are_the_whole_and_none_is_negative(work: StepWork, tp: int) -> None:
    model = cost(tp)
    forward = model.forward_terms(work)
    assert all(seconds >= 0 for seconds in forward.values())
    assert model.forward_seconds(work) == pytest.approx(sum(forward.values()))
    assert (model.forward_seconds(work) > 0) == (work.rows > 0)
    for parallel in (False, True):
        sampling = model.sampling_terms(work, parallel=parallel)
        assert all(seconds >= 0 for seconds in sampling.values())
        assert model.sampling_seconds(work, parallel=parallel) == pytest.approx(sum(sampling.values()))


@given(work=works, tp=degrees, field=st.sampled_from(COUNTS))
def test_more_work_never_takes_less_time(work: StepWork, tp: int, field: str) -> None:
    model, more = cost(tp), replace(work, **{field: getattr(work, field) + 64})
    least = 1 - 1e-9
    assert model.forward_seconds(more) >= model.forward_seconds(work) * least
    host, more_host = model.host(work), model.host(more)
    assert all(getattr(more_host, part) >= getattr(host, part) for part in ("t1", "t2", "t5"))
    for parallel in (False, True):
        longer, shorter = (model.sampling_seconds(w, parallel=parallel) for w in (more, work))
        assert longer >= shorter * least


@given(work=works.filter(lambda work: work.rows > 0))
def test_without_collectives_and_launches_twice_the_ranks_take_half_the_time(work: StepWork) -> None:
    def shared(tp: int) -> float:
        terms = cost(tp).forward_terms(work)
        return sum(terms.values()) - terms["collectives"] - terms["launch"]

    for tp in DEGREES[:-1]:
        assert shared(2 * tp) == pytest.approx(shared(tp) / 2)


@given(work=works.filter(lambda work: work.rows > 0), power=st.floats(1, 64))
def test_reading_and_multiplying_take_between_the_longer_and_the_sum(work: StepWork, power: float) -> None:
    def matrices(overlap: float) -> float:
        terms = cost(1, overlap=overlap).forward_terms(work)
        return terms["weights"] + terms["multiplications"]

    total = matrices(1)
    weights = cost(1).forward_terms(work)["weights"]
    larger = max(weights, total - weights)
    assert larger * (1 - 1e-9) <= matrices(power) <= total * (1 + 1e-9)


def test_decoding_reads_weights_and_keys_at_the_attained_bandwidth() -> None:
    terms = cost(4, weights=0.5, kv=0.25).forward_terms(StepWork(decodes=1, context=1000))
    layers = QWEN_32B.num_layers * 5120 * ((40 + 8) * 2 * 128 + 3 * 27_648)
    assert terms["weights"] == pytest.approx(layers * 2 / 4 / (3350e9 * 0.5))
    assert terms["kv"] == pytest.approx(1000 * 2 * 64 * 8 * 128 * 2 / 4 / (3350e9 * 0.25))
    assert terms["prefill attention"] == 0


def test_a_long_prefill_is_bound_by_its_multiplications() -> None:
    tokens = 8192
    terms = cost(1, overlap=64, compute=0.6, attention=0.4).forward_terms(
        StepWork(prefill=tokens, prefill_pairs=tokens * (tokens + 1) // 2)
    )
    layers = QWEN_32B.num_layers * 5120 * ((40 + 8) * 2 * 128 + 3 * 27_648)
    products = 2 * layers * tokens / (989.4e12 * 0.6)
    assert terms["weights"] + terms["multiplications"] == pytest.approx(products)
    pairs = tokens * (tokens + 1) / 2
    assert terms["prefill attention"] == pytest.approx(pairs * 4 * 64 * 40 * 128 / (989.4e12 * 0.4))


def test_the_head_costs_what_samples_and_not_what_is_computed() -> None:
    model = cost(1, weights=0.8)
    chunk = StepWork(prefill=2048, prefill_pairs=2048 * 1024)
    last = replace(chunk, greedy=1)
    head = 152_064 * 5120 * 2 / (3350e9 * 0.8)
    extra = model.forward_terms(last)["weights"] - model.forward_terms(chunk)["weights"]
    assert extra == pytest.approx(head)


def test_an_all_reduce_has_latency_and_bytes() -> None:
    work = StepWork(decodes=100, context=100)
    assert cost(1).forward_terms(work)["collectives"] == 0
    for tp in DEGREES[1:]:
        sent = 2 * (tp - 1) / tp * 100 * 5120 * 2
        expected = 129 * (10e-6 + sent / (450e9 * 0.6))
        assert cost(tp).forward_terms(work)["collectives"] == pytest.approx(expected)


def test_a_rank_samples_its_share_padded_up() -> None:
    """Five rows on four ranks take as long as two on one."""
    shared = cost(4).sampling_terms(StepWork(penalized=5), parallel=True)
    alone = cost(1).sampling_terms(StepWork(penalized=2), parallel=False)
    assert shared["sampling"] == pytest.approx(alone["sampling"])
    assert shared["exchange"] > 200e-6


def test_the_papers_sampling_is_met_on_one_rank_and_on_four() -> None:
    work = StepWork(decodes=256, penalized=256)
    assert cost(4).sampling_seconds(work, parallel=False) == pytest.approx(6 * MILLI, rel=0.05)
    assert cost(4).sampling_seconds(work, parallel=True) == pytest.approx(1.7 * MILLI, rel=0.05)


def test_a_degree_has_the_table_of_the_largest_one_below() -> None:
    tables = (
        H100.efficiency[0].model_copy(update={"tp": 4, "layer_us": 40.0}),
        *H100.efficiency,
    )
    device = H100.model_copy(update={"efficiency": tables})
    launch = [
        PhysicalCost(device, QWEN_32B, tp).forward_terms(StepWork(decodes=1))["launch"] for tp in DEGREES
    ]
    assert launch == pytest.approx([(64 * us + 100) * 1e-6 for us in (5, 5, 40, 40)])


def test_a_degree_that_the_model_or_the_device_cannot_have_is_refused() -> None:
    with pytest.raises(ValueError, match="num_attention_heads = 40 cannot be divided by a TP degree of 16"):
        PhysicalCost(H100, QWEN_32B, 16)
    alone = H100.model_copy(update={"link": None})
    assert PhysicalCost(alone, QWEN_32B, 1).forward_seconds(StepWork(decodes=1)) > 0
    with pytest.raises(ValueError, match="device h100: no link, so there is no TP degree of 2"):
        PhysicalCost(alone, QWEN_32B, 2)


@given(work=works, tp=degrees, ends=st.sets(st.integers(0, 64), min_size=2, max_size=4))
def test_spans_that_follow_one_another_add_what_a_chunk_does(work: StepWork, tp: int, ends: set[int]) -> None:
    """Rows cost in each layer what they cost there in a step that has them in all layers."""
    layers, start, count = QWEN_32B.num_layers, 1000, 80
    span = SpanWork.of(range(layers), start, count)
    model, work = cost(tp), replace(work, layers=layers)
    chunk = replace(work, prefill=work.prefill + count, prefill_pairs=work.prefill_pairs + span.pairs)
    alone, whole = model.forward_seconds(work), model.forward_seconds(chunk)
    assert model.forward_seconds(replace(work, spans=(span,))) == pytest.approx(whole)
    bounds = sorted({0, layers} | ends)
    parts = [
        model.forward_seconds(replace(work, spans=(SpanWork.of(range(first, last), start, count),)))
        for first, last in pairwise(bounds)
    ]
    if work.rows:  # the weights are read for these rows in each step
        assert sum(parts) - len(parts) * alone == pytest.approx(whole - alone)
    else:
        assert sum(parts) == pytest.approx(whole)


def test_layers_without_rows_cost_nothing_and_one_row_reads_kv_as_a_decoding_one() -> None:
    model, layers = cost(4), QWEN_32B.num_layers
    row = StepWork(decodes=1, context=5000)
    half = StepWork(spans=(SpanWork.of(range(layers // 2), 4999, 1),), layers=layers)
    assert model.forward_seconds(half) == pytest.approx(model.forward_seconds(row) / 2)
