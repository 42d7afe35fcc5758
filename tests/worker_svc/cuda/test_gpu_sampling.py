"""A row's draw on a device, where exponentials and selections are not those of the CPU."""

from __future__ import annotations

import pytest
import torch

from tests.worker_svc.cuda.scene import amount
from tests.worker_svc.sampling.test_draw import BOUNDED, draws_of, kinds
from worker_svc.sampling.draw import draw_bounded, draw_wide
from worker_svc.sampling.tiles import tile_maxima


@pytest.mark.parametrize("vocabulary", [257, 151_936])
def test_the_largest_numbers_draw_what_all_numbers_draw(cuda: torch.device, vocabulary: int) -> None:
    logits = kinds(amount(vocabulary, simulated=min(vocabulary, 5003))).repeat_interleave(len(BOUNDED), 0)
    draws = draws_of(BOUNDED, len(logits)).map_arrays(lambda array: array.to(cuda))
    logits = logits.to(cuda)
    maxima = tile_maxima(logits)
    by_all = draw_wide(logits, maxima, draws)
    for _ in range(3):  # a selection may bring other ones of equal numbers each time
        assert torch.equal(draw_bounded(logits, maxima, draws), by_all)
