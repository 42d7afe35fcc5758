"""The native kernel draws from the distribution that torch's operations leave of a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.worker_svc.kernels.builds import LIBRARIES, USABLE
from tests.worker_svc.sampled import DRAWN, GREEDY, MIXED, Row, logits_of, staged, weights
from worker_svc.sampling import native_draw
from worker_svc.sampling.draw import draw_wide
from worker_svc.sampling.failed import FAILED
from worker_svc.sampling.inputs import Draws, SamplingInput
from worker_svc.sampling.native_draw import draw_native, has_native_draws
from worker_svc.sampling.tiles import MOST_LISTED, tile_maxima

pytestmark = pytest.mark.skipif(not has_native_draws(), reason="no native kernels are compiled for this CPU")


@pytest.fixture(autouse=True, scope="module", params=USABLE)
def build(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every build that this CPU runs, and not the fastest alone."""
    library = LIBRARIES[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_draw, "_kernel", lambda *, short: library.function("draw", torch.float32))
        yield


def draws_of(**controls: Any) -> Draws[Tensor]:
    """One row's; of what is not named, none."""
    given = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "uniforms": 0.5} | controls
    params = staged([replace(DRAWN, top_k=given["top_k"])], 300).params.native
    assert params is not None
    arrays: dict[str, Any] = {
        name: torch.tensor([value]).to(getattr(params, name).dtype) for name, value in given.items()
    }
    return replace(params, **arrays)


CONTROLS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.05, 0.7, 1.0, 3.0]),
        "top_k": st.sampled_from([0, 1, 2, 17, 256]),
        "top_p": st.sampled_from([0.05, 0.6, 0.95, 1.0]),
        "min_p": st.sampled_from([0.0, 0.01, 0.4, 1.0]),
    }
)


@settings(max_examples=150, deadline=None)
@given(
    CONTROLS,
    st.sampled_from([2, 5, 16, 127, 128, 129, 700, 5003, 40_000]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 1 << 20),
    st.booleans(),
)
def test_a_draw_falls_into_the_interval_of_its_id(
    controls: dict[str, Any], size: int, uniform: float, seed: int, ties: bool
) -> None:
    if not controls["top_k"]:
        controls |= {"top_p": 1.0, "min_p": 0.0}
    logits = logits_of(1, size, seed)
    logits = (2 * logits).round() / 2 + 0.0 if ties else logits  # no -0
    share = weights(logits[0], Row(replace(DRAWN, **controls)))
    [id_] = draw_native(logits, draws_of(**controls, uniforms=uniform)).tolist()
    assert share[id_] > 0
    ends = share.cumsum(0)
    assert ends[id_] - share[id_] - 1e-5 <= uniform <= ends[id_] + 1e-5


@given(st.sampled_from([1, 127, 128, 300, 5003]), st.integers(0, 99), st.booleans())
def test_greedy_takes_the_first_of_the_largest(size: int, seed: int, ties: bool) -> None:
    logits = logits_of(1, size, seed)
    logits = logits.round() if ties else logits
    assert draw_native(logits, draws_of(temperature=0.0)).tolist() == [int(logits.argmax())]


def test_zeros_of_both_signs_are_one_number_for_greedy() -> None:
    logits = torch.full((1, 300), -1.0)
    logits[0, 40], logits[0, 200] = -0.0, 0.0
    assert draw_native(logits, draws_of(temperature=0.0)).tolist() == [40]


@pytest.mark.parametrize("controls", [{"temperature": 0.0}, {}, {"top_k": 5}, {"top_k": 256, "top_p": 0.5}])
@pytest.mark.parametrize("number", [torch.nan, -torch.nan, torch.inf])
@pytest.mark.parametrize("at", [0, 17, 130, 298, 299])
def test_a_row_with_something_else_than_numbers_fails(
    controls: dict[str, Any], number: float, at: int
) -> None:
    logits = logits_of(1, 300)
    logits[0, at] = number
    assert draw_native(logits, draws_of(**controls)).tolist() == [FAILED]


@pytest.mark.parametrize("controls", [{"temperature": 0.0}, {}, {"top_k": 5}, {"top_k": 5, "top_p": 0.5}])
def test_what_must_not_be_drawn_is_not(controls: dict[str, Any]) -> None:
    logits = torch.full((1, 300), -torch.inf)
    assert draw_native(logits, draws_of(**controls)).tolist() == [FAILED]
    logits[0, 299] = -3.0
    for uniform in (0.0, 0.5, 1 - 2**-53):
        assert draw_native(logits, draws_of(**controls, uniforms=uniform)).tolist() == [299]


def test_rows_anywhere_in_wider_memory() -> None:
    memory = logits_of(7, 512)
    logits, rows = memory[:, :300], torch.tensor([1, 4, 6])
    one = draws_of(top_k=20, uniforms=0.7)
    draws = one.map_arrays(lambda array: array.repeat(3))
    found = draw_native(logits, replace(draws, rows=rows))
    alone = [draw_native(logits[row : row + 1].clone(), one) for row in rows.tolist()]
    assert torch.equal(found, torch.cat(alone))


def test_more_equal_numbers_than_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others draw such a row, and no other row."""
    drawn: list[int] = []

    def counted(logits: Tensor, maxima: Tensor, draws: Draws[Tensor]) -> Tensor:
        drawn.append(len(draws))
        return draw_wide(logits, maxima, draws)

    monkeypatch.setattr(native_draw, "draw_wide", counted)
    logits = logits_of(3, 10_000)
    logits[1, : MOST_LISTED + 1] = 9.0
    draws = draws_of(top_k=3, uniforms=0.9).map_arrays(lambda array: array.repeat(3))
    draws = replace(draws, rows=torch.arange(3))
    found = draw_native(logits, draws)
    assert drawn == [1]
    assert torch.equal(found, draw_wide(logits, tile_maxima(logits), draws))
    assert int(found[1]) == int(0.9 * (MOST_LISTED + 1))


def by_group(params: SamplingInput[Tensor]) -> dict[str, list[int]]:
    groups = {name: getattr(params, name) for name in ("native", "plain", "narrow", "wide")}
    rows = {name: draws.rows.tolist() for name, draws in groups.items() if draws is not None}
    return rows | ({"greedy": params.greedy.tolist()} if len(params.greedy) else {})


def test_which_rows_it_draws() -> None:
    requests = [
        GREEDY,
        replace(GREEDY, typical_p=0.5, top_p=0.3),
        DRAWN,
        replace(DRAWN, top_k=256, top_p=0.5, min_p=0.1),
        replace(DRAWN, top_k=257),
        replace(DRAWN, top_p=0.9),
        replace(DRAWN, top_k=5, typical_p=0.9),
    ]
    assert by_group(staged(requests, 700).params) == {"native": [0, 1, 2, 3], "narrow": [5, 6], "wide": [4]}
    assert "native" not in by_group(staged(MIXED, 700, on_cpu=False).params)
