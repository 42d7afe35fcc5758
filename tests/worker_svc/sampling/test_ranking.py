"""Thresholds of rows of any length, against a full sort."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worker_svc.sampling.ranking import LOWEST_ORDER, SORTED, Ranking, ordered

LENGTHS = [1, 2, 255, 256, 257, SORTED, SORTED + 1, 2 * SORTED + 1, 151_936]


def numbers(n: int) -> Tensor:
    """Rows of all kinds ``[rows, n]``."""
    draw = torch.Generator().manual_seed(n)
    normal = torch.randn(n, generator=draw)
    plateau = normal.clamp(max=1.0)
    few = (normal * 2).round()
    holes = torch.where(normal > 1.5, normal, -torch.inf)
    zeros = torch.where(normal > 0, 0.0, -0.0)
    wide = normal * 10.0 ** torch.randint(-40, 38, (n,), generator=draw)
    strange = normal.clone()
    strange[:: max(1, n // 7)] = torch.nan
    strange[1 :: max(1, n // 5)] = torch.inf
    equal = torch.full_like(normal, -3.0)
    return torch.stack([normal, plateau, few, holes, zeros, wide, strange, -strange, equal])


@pytest.mark.parametrize("n", LENGTHS)
def test_floats_keep_their_order_as_integers(n: int) -> None:
    rows = numbers(n)[:6]
    order = ordered(rows)
    assert torch.equal(rows.gather(1, order.argsort(-1)), rows.sort(-1).values)
    assert int(ordered(torch.tensor(-0.0))) == int(ordered(torch.tensor(0.0))) - 1


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("most", [256, 10**6])
def test_the_kth_largest(n: int, most: int) -> None:
    order = ordered(numbers(n))
    descending = order.sort(-1, descending=True).values
    ranking = Ranking(order)
    for count in {1, 2, n // 2, n - 1, n} & set(range(1, min(most, n) + 1)):
        found = ranking.kth(torch.full((len(order),), count), min(most, n))
        assert torch.equal(found, descending[:, count - 1 : count])
    if n < most:
        assert (ranking.kth(torch.full((len(order),), n + 1), n) == LOWEST_ORDER).all()


@pytest.mark.parametrize("n", LENGTHS)
def test_where_a_share_of_the_mass_is_reached(n: int) -> None:
    """Masses of zero among them, and targets that some value reaches exactly, or none does."""
    order = ordered(numbers(n))
    draw = torch.Generator().manual_seed(n)
    mass = torch.randint(0, 1 << 44, order.shape, generator=draw)
    mass[:, torch.rand(n, generator=draw) < 0.3] = 0
    descending, places = order.sort(-1, descending=True)
    cumulated = mass.gather(1, places).cumsum(-1)
    total, ranking = cumulated[:, -1:], Ranking(order)
    at = torch.randint(0, n, (len(order), 8), generator=draw)
    exact = cumulated.gather(1, at).clamp(min=1)
    for target in (*exact.split(1, 1), *(exact + 1).split(1, 1), (total // 3).clamp(min=1)):
        reached = cumulated >= target
        expected = descending.gather(1, reached.int().argmax(-1, keepdim=True))
        found = ranking.crossing(mass, target)
        known = target <= total
        assert torch.equal(found[known], expected[known])
        assert (found <= descending[:, -1:])[~known].all()
