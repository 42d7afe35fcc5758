"""The bundled model, and plans for it without a scheduler: requests that come and go one by one."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from albireo.contract.plan import Admission, Chunk, Grant, Plan, SamplingParams, blocks_for
from albireo.models import TINY
from albireo.runtime.clock import SYSTEM_CLOCK
from albireo.runtime.kv_memory import KvMemory
from tests.worker_svc.simulated_cuda.device import is_simulated
from worker_svc.batch.staging import StepBatch
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.runner.device_output import DeviceOutput
from worker_svc.runner.interface import HostOutput
from worker_svc.runner.model_runner import ModelRunner
from worker_svc.sampling.layout import SamplingMode
from worker_svc.stages.queue import StageQueue

VOCABULARY = 384
SLOTS = 20  # a multiple of nothing that rows are rounded up to
GREEDY = SamplingParams(max_tokens=512, seed=0, temperature=0.0, ignore_eos=True)
MIXED = (
    GREEDY,
    SamplingParams(max_tokens=512, seed=1, top_k=20, ignore_eos=True),
    SamplingParams(max_tokens=512, seed=2, top_p=0.8, logprobs=3, ignore_eos=True),
    SamplingParams(max_tokens=512, seed=3, temperature=1.4, min_p=0.05, ignore_eos=True),
    SamplingParams(max_tokens=512, seed=4, min_tokens=40, stop_ids=(5, 6), ignore_eos=True),
    SamplingParams(max_tokens=512, seed=5, typical_p=0.9, repetition_penalty=1.1, ignore_eos=True),
    SamplingParams(
        max_tokens=512,
        seed=6,
        top_k=300,
        top_p=0.9,
        presence_penalty=0.4,
        frequency_penalty=0.2,
        logit_bias=((40, 2.0), (41, -2.0)),
        prompt_logprobs=2,
        ignore_eos=True,
    ),
    SamplingParams(max_tokens=512, seed=7, allowed_ids=tuple(range(9, 384, 2)), ignore_eos=True),
    SamplingParams(
        max_tokens=512, seed=8, temperature=0.0, frequency_penalty=0.3, bad_ids=(7, 8), logprobs=0
    ),
)


def make_runner(
    device: torch.device,
    *,
    dtype: torch.dtype = torch.float32,
    cuda_graphs: bool = True,
    synchronous: bool = False,
    group: TPGroup | None = None,
    sampling: SamplingMode = "auto",
) -> ModelRunner:
    """The bundled model with 20 slots and room for all of them."""
    return ModelRunner(
        TINY,
        group or TPGroup(),
        device=device,
        dtype=dtype,
        kv_memory=KvMemory(16 << 20),
        max_seqs=SLOTS,
        max_model_len=512,
        synchronous=synchronous,
        cuda_graphs=cuda_graphs,
        sampling=sampling,
    )


def amount(on_card: int, simulated: int) -> int:
    """How much of something a test does: less on the simulated device, which is slow."""
    return simulated if is_simulated() else on_card


def staggered(
    requests: int, outputs: int, sampling: Sequence[SamplingParams] = (GREEDY,), *, whole: bool = False
) -> Iterator[Plan]:
    """Every second step a request comes, until there are ``requests``; each leaves after ``outputs`` ids.

    So the batch grows and shrinks, and contexts of all lengths decode side by side. Not ``whole``, it is
    shorter on the simulated device.
    """
    if not whole:
        requests, outputs = amount(requests, min(4, requests)), amount(outputs, min(8, outputs))
    draw = random.Random(0)
    prompts = [tuple(draw.randrange(2, VOCABULARY) for _ in range(3 + 29 * i % 90)) for i in range(requests)]
    most = blocks_for(93 + outputs)
    begun: dict[int, int] = {}  # step that prefills
    step = 0
    while step <= 2 * requests + outputs:
        step += 1
        slot = (step - 1) // 2
        comes = step % 2 == 1 and slot < requests
        decoding = [s for s, first in begun.items() if step - first < outputs]
        grants = []
        for s in decoding:
            tokens = len(prompts[s]) + step - begun[s]
            if tokens % 16 == 1:
                grants.append(Grant(s, (s * most + blocks_for(tokens) - 1,)))
        if comes:
            first_block = slot * most
            grants.append(
                Grant(slot, tuple(range(first_block, first_block + blocks_for(len(prompts[slot])))))
            )
        yield Plan(
            epoch=1,
            step=step,
            released=tuple(s for s, first in begun.items() if step - first == outputs),
            admissions=(_admission(slot, prompts[slot], sampling),) if comes else (),
            grants=tuple(grants),
            chunks=(Chunk(slot, 0, len(prompts[slot])),) if comes else (),
            num_decodes=len(decoding),
        )
        if comes:
            begun[slot] = step


def _admission(slot: int, prompt: tuple[int, ...], sampling: Sequence[SamplingParams]) -> Admission:
    return Admission(slot, slot + 1, f"r{slot}", prompt, 0, 0, sampling[slot % len(sampling)])


class Tap:
    """Keeps the logits of a runner's last forward."""

    def __init__(self, runner: ModelRunner, monkeypatch: pytest.MonkeyPatch) -> None:
        self.logits = torch.empty(0)
        self._forward = runner._forward
        monkeypatch.setattr(runner, "_forward", self)

    def __call__(self, batch: StepBatch) -> tuple[Tensor, Tensor | None]:
        logits, prompts = self._forward(batch)
        self.logits = logits.clone()  # sampling overwrites them
        return logits, prompts


def ids(outputs: Sequence[HostOutput]) -> list[list[int]]:
    """What each step sampled, by slot: the order of a step's rows is the runner's own."""
    return [output.ids[np.argsort(output.slots)].tolist() for output in outputs]


def in_turn(runner: ModelRunner, plans: Sequence[Plan]) -> list[HostOutput]:
    """Each step is prepared after the one before it has come to the host."""
    runner.reset()
    return [runner.execute(runner.prepare(plan)).to_host() for plan in plans]


def overlapped(
    runner: ModelRunner, plans: Sequence[Plan], before_step: Callable[[], None] = lambda: None
) -> list[HostOutput]:
    """Three threads and the queues of a rank; ``before_step`` is called by the compute stage."""
    runner.reset()
    stop = threading.Event()
    staged: StageQueue[StepBatch] = StageQueue(2, stop, SYSTEM_CLOCK)
    computed: StageQueue[DeviceOutput] = StageQueue(2, stop, SYSTEM_CLOCK)
    outputs: list[HostOutput] = []

    def prepare() -> None:
        for plan in plans:
            staged.put(runner.prepare(plan))

    def fetch() -> None:
        while len(outputs) < len(plans) and (output := computed.get()) is not None:
            outputs.append(output.to_host())

    threads = [threading.Thread(target=body, daemon=True) for body in (prepare, fetch)]
    for thread in threads:
        thread.start()
    for _ in plans:
        batch = staged.get()
        assert batch is not None
        before_step()
        computed.put(runner.execute(batch))
    for thread in threads:
        thread.join(30)
    stop.set()
    return outputs
