"""Triton's kernels, compiled, bring what torch's operations bring."""

from __future__ import annotations

import pytest
import torch

from tests.worker_svc.cuda.scene import MIXED, SLOTS, Tap, make_runner, staggered
from tests.worker_svc.kernels import test_triton
from tests.worker_svc.kernels.triton_scene import TritonScene
from worker_svc.kernels.choice import triton_kernels
from worker_svc.kernels.interface import Heads
from worker_svc.model import loader

pytestmark = pytest.mark.gpu


@pytest.fixture
def triton_scene(cuda: torch.device) -> TritonScene:
    kernels = triton_kernels(cuda, torch.bfloat16, 64, Heads(4, 2), 64)
    assert kernels is not None
    return TritonScene(kernels, cuda)


test_norm = test_triton.test_norm
test_gate = test_triton.test_gate
test_a_gate_of_any_size_is_a_number = test_triton.test_a_gate_of_any_size_is_a_number
test_rotate = test_triton.test_rotate
test_rounded = test_triton.test_rounded
test_scaled = test_triton.test_scaled
test_decoding_rows = test_triton.test_decoding_rows
test_chunks = test_triton.test_chunks
test_many_parts = test_triton.test_many_parts
test_padding_rows = test_triton.test_padding_rows_of_a_graph_are_numbers_and_change_nothing
test_nan_stays_with_its_row = test_triton.test_nan_stays_with_its_row
test_no_rows = test_triton.test_no_rows


def test_steps_bring_the_logits_of_torchs_operations(
    cuda: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts in chunks, decoding rows, both in one step."""
    runner = make_runner(cuda)
    monkeypatch.setattr(loader, "triton_kernels", lambda *_: None)
    plain = make_runner(cuda)
    assert (runner._graphs is None, plain._graphs is None) == (False, True)
    taps = [Tap(one, monkeypatch) for one in (runner, plain)]
    for plan in staggered(SLOTS, 40, MIXED):
        found = runner.execute(runner.prepare(plan)).to_host()
        expected = plain.execute(plain.prepare(plan)).to_host()
        order = [torch.from_numpy(output.slots).argsort().to(cuda) for output in (found, expected)]
        rows = [tap.logits[at] for tap, at in zip(taps, order, strict=True)]
        torch.testing.assert_close(rows[0], rows[1], atol=1e-3, rtol=1e-3)
        runner._last_token.copy_(plain._last_token)  # near ties must not part the two
