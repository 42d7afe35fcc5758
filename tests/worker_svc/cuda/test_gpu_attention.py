"""Attention to ragged block tables brings in whole steps what attention with masks brings."""

from __future__ import annotations

import pytest
import torch

from tests.worker_svc.cuda.scene import MIXED, SLOTS, Tap, make_runner, staggered
from worker_svc.model import loader


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
