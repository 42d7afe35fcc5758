"""A checkpoint under our runner, and what transformers makes of the same prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from albireo.contract.plan import SamplingParams
from tests.worker_svc.checkpoints import VOCAB, Reference
from tests.worker_svc.oracle import Ask, Scenario, make_runner, run
from worker_svc.collectives.tp_group import TPGroup


def edit(path: Path, *drop: str, **fields: Any) -> None:
    """Changes fields of a JSON file, and takes some out."""
    found = (json.loads(path.read_text()) if path.exists() else {}) | fields
    path.write_text(json.dumps({name: value for name, value in found.items() if name not in drop}))


def prompt_of(length: int) -> tuple[int, ...]:
    draw = torch.Generator().manual_seed(length)
    return tuple(torch.randint(VOCAB, (length,), generator=draw).tolist())


def our_logits(directory: Path, prompt: tuple[int, ...], max_model_len: int) -> Tensor:
    """``[vocabulary]`` after the prompt, in fp32 on one rank."""
    scenario = Scenario(num_blocks=64, max_model_len=max_model_len)
    group = TPGroup()
    sampling = SamplingParams(max_tokens=1, seed=0, temperature=0.0)
    outcome = run(make_runner(directory, group, scenario), group, scenario, [Ask("a", prompt, sampling)])
    return outcome.answers["a"].logits[0]


def check_same(
    directory: Path, *, reference: Path | None = None, length: int = 40, max_model_len: int = 256
) -> None:
    """Logits after a prompt equal transformers' for the directory, or for ``reference``."""
    prompt = prompt_of(length)
    theirs = Reference(reference or directory).logits(prompt)[-1]
    torch.testing.assert_close(our_logits(directory, prompt, max_model_len), theirs, atol=2e-4, rtol=2e-4)
