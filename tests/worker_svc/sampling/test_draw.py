"""Each way to draw, against a full sort of each row: the same ids, bit for bit."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from worker_svc.buffers.scratch import ScratchBuffer
from worker_svc.sampling.draw import draw_bounded, draw_narrow, draw_wide
from worker_svc.sampling.failed import FAILED
from worker_svc.sampling.inputs import Draws
from worker_svc.sampling.tiles import tile_maxima


class Control(NamedTuple):
    """What one row asks for."""

    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    temperature: float = 1.0


BOUNDED = [
    Control(1),
    Control(2, 0.5),
    Control(50, 0.95, temperature=0.8),
    Control(50, min_p=0.02, temperature=1.3),
    Control(100, min_p=1.0),
    Control(40, 1e-6),
    Control(255, 0.9, 0.001, 0.9),
    Control(256, typical_p=0.5),
    Control(50, typical_p=0.6, temperature=3.0),
    Control(256, 0.999, temperature=30.0),
]
UNBOUNDED = [
    Control(0, 0.9),
    Control(0, 0.9999, temperature=20.0),
    Control(0, 0.5, 0.01, 0.8),
    Control(0, typical_p=0.3),
    Control(257),
    Control(300, 0.9, typical_p=0.9),
    Control(0, min_p=0.1),
]
VOCABULARIES = [1, 2, 255, 256, 257, 5003, 151_936]


def kinds(n: int) -> Tensor:
    """``[kinds, n]``: rows of logits of which each is difficult in its own way."""
    draw = torch.Generator().manual_seed(n)
    normal = torch.randn(n, generator=draw) * 2
    shuffled = torch.randperm(n, generator=draw)
    ranked = -torch.arange(n).float()[shuffled] / 20
    rows = {
        "normal": normal,
        "sharp": normal * 8,
        "flat": normal / 100,
        "few values": normal.round(),
        "all equal": torch.zeros(n),
        "equal from the 49th on": ranked.clamp(min=-48 / 20),
        "equal around the 50th": torch.where((ranked < -2) & (ranked > -40), -2.5, ranked),
        "only three": torch.where(shuffled < 3, normal, -torch.inf),
        "half": torch.where(normal > 0, normal, -torch.inf),
        "signed zeros": torch.where(normal > 0, 0.0, -0.0),
        "NaN": torch.where(shuffled == n // 2, torch.nan, normal),
        "negative NaN": torch.where(shuffled == n // 2, -torch.tensor(torch.nan), normal),
        "infinite": torch.where(shuffled == n // 2, torch.inf, normal),
        "nothing": torch.full((n,), -torch.inf),
    }
    return torch.stack(list(rows.values()))


def draws_of(controls: list[Control], rows: int) -> Draws[Tensor]:
    """Rows with the controls in turn; uniforms from one end of their range to the other."""
    found = [controls[row % len(controls)] for row in range(rows)]
    uniforms = torch.rand(rows, dtype=torch.float64, generator=torch.Generator().manual_seed(rows))
    uniforms[::7], uniforms[3::7] = 0.0, 1 - 2.0**-53
    return Draws(
        rows=torch.arange(rows),
        temperature=torch.tensor([control.temperature for control in found]),
        top_k=torch.tensor([control.top_k for control in found]),
        top_p=torch.tensor([control.top_p for control in found]),
        min_p=torch.tensor([control.min_p for control in found]),
        typical_p=torch.tensor([control.typical_p for control in found]),
        uniforms=uniforms,
        max_top_k=max(control.top_k for control in found),
        any_top_p=any(control.top_p < 1 for control in found),
        any_min_p=any(control.min_p > 0 for control in found),
        any_typical_p=any(control.typical_p < 1 for control in found),
        any_unbounded=any(control.top_k == 0 for control in found),
    )


def integers(x: Tensor) -> Tensor:
    """fp32 by its value, -0 before 0."""
    bits = x.view(torch.int32).long()
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF) - 1, bits)


def least_that_reaches(keys: Tensor, mass: Tensor, target: int) -> int:
    """The largest key at and above which there is so much mass, by a full sort."""
    keys, places = keys.sort(descending=True)
    reached = (mass[places].cumsum(0) >= target).nonzero()
    return int(keys[reached[0]] if len(reached) else keys[-1])


def share(part: Tensor, total: int) -> int:
    return max(1, min(total, int((part.double() * total).ceil())))


def by_full_sort(row: Tensor, draws: Draws[Tensor], entry: int) -> int:
    """The id that one row ``[n]`` draws."""
    highest, keys = row.max(), integers(row)
    if not highest.isfinite():
        return FAILED
    temperature = draws.temperature[entry]
    relative = (row - highest) / temperature
    mass = (relative.exp() * 2.0**44).long()
    total = int(2.0**44 / torch.softmax(row / temperature, 0).max().double())
    if top_k := int(draws.top_k[entry]):
        kth = keys.sort(descending=True).values[min(top_k, len(row)) - 1]
        mass[keys < kth] = 0
        total = int(mass.sum())
    floor = keys.min()
    if draws.top_p[entry] < 1:
        floor = torch.tensor(least_that_reaches(keys, mass, share(draws.top_p[entry], total)))
    if draws.min_p[entry] > 0:
        floor = torch.maximum(floor, integers(highest + temperature * draws.min_p[entry].log()))
    mass[keys < floor] = 0
    if draws.typical_p[entry] < 1:
        number = relative.double().clamp(min=-64)
        mean = float((mass * number / 16).long().sum()) * 16 / int(mass.sum())
        near = integers(-(number - mean).abs().float()).masked_fill(mass == 0, -(2**32))
        mass[near < least_that_reaches(near, mass, share(draws.typical_p[entry], int(mass.sum())))] = 0
    cumulated = mass.cumsum(0)
    if not cumulated[-1]:
        return FAILED
    target = min(int(draws.uniforms[entry] * int(cumulated[-1])), int(cumulated[-1]) - 1)
    return int((cumulated > target).nonzero()[0])


def scene(controls: list[Control], vocabulary: int) -> tuple[Tensor, Draws[Tensor], list[int]]:
    """Logits ``[rows, vocabulary]``, controls, and the ids: each kind of row with each control."""
    rows = kinds(vocabulary)
    logits = rows.repeat_interleave(len(controls), 0)  # the controls come in turn
    draws = draws_of(controls, len(logits))
    return logits, draws, [by_full_sort(row, draws, entry) for entry, row in enumerate(logits)]


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_a_small_top_k_draws_what_a_full_sort_draws(vocabulary: int) -> None:
    """By the largest numbers alone, by those that a CPU lists, and by all."""
    logits, draws, expected = scene(BOUNDED, vocabulary)
    maxima = tile_maxima(logits)
    assert draw_bounded(logits, maxima, draws).tolist() == expected
    assert draw_wide(logits, maxima, draws).tolist() == expected
    narrow, enough = draw_narrow(logits, maxima, draws, ScratchBuffer())
    assert torch.equal(narrow[enough], torch.tensor(expected)[enough])
    assert len({*expected}) > min(vocabulary, 10)  # and FAILED


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_other_controls_draw_what_a_full_sort_draws(vocabulary: int) -> None:
    logits, draws, expected = scene(UNBOUNDED, vocabulary)
    assert draw_wide(logits, tile_maxima(logits), draws).tolist() == expected
