"""A real rank on the simulated device, the real scheduler and a gateway, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from albireo.checkpoint.fingerprint import fingerprint
from albireo.contract.plan import SamplingParams
from albireo.models import TINY
from albireo.virtual.clock import VirtualClock
from gateway.requests.validation import ValidRequest
from tests.races.fake_scheduler import tokens
from tests.virtual.gateway import Answer, VirtualGateway
from tests.virtual.rank import worker
from tests.virtual.services import KEYS, RecordedKeyspace, scheduler
from worker_svc.cost.fixed import FixedCost, StepTimes

STEP_SECONDS = 0.02
TIMES = {"name": "test", "source": "made up", "t3": {"fixed_ms": 18}, "t4": {"fixed_ms": 2}}
COST = FixedCost(StepTimes.model_validate(TIMES), 1)


def request(name: str, *, max_tokens: int, seed: int) -> ValidRequest:
    sampling = SamplingParams(max_tokens=max_tokens, seed=seed, ignore_eos=True)
    return ValidRequest(name, tuple(range(2, 40)), sampling, (), 0, 1, "default")


def serve(requests: list[ValidRequest], *, synchronous: bool) -> tuple[list[Answer], str, float]:
    """Answers, a hash of all logs, and the virtual seconds from the first submission to the last end."""
    with VirtualClock() as clock:
        space = RecordedKeyspace(clock)
        options = {"synchronous": synchronous}
        with scheduler(clock, space, **options), worker(clock, space, COST, **options) as rank:
            gateway = VirtualGateway(clock, space, KEYS, "g0", fingerprint=fingerprint(TINY), max_queue=100)
            clock.run(gateway.start())
            clock.sleep(1)
            assert rank.serving
            assert gateway.alive
            began = clock.now()

            async def all_at_once() -> list[Answer]:
                return await asyncio.gather(*map(gateway.generate, requests))

            answers = clock.run(all_at_once())
            took = clock.now() - began
        return answers, space.digest, took


@pytest.mark.parametrize("synchronous", [False, True])
def test_a_rank_serves_in_virtual_time(synchronous: bool) -> None:
    requests = [request(f"r{i}", max_tokens=50 + i, seed=i) for i in range(4)]
    answers, digest, took = serve(requests, synchronous=synchronous)
    for answer in answers:
        count = answer.request.sampling.max_tokens
        assert answer.ends == [(0, "LENGTH")]
        assert answer.ids[0] == tokens(answer.request.sampling.seed, 0, count)
    # One step for the prompts, and one for each further token of the longest.
    assert took == pytest.approx(53 * STEP_SECONDS, abs=2 * STEP_SECONDS)
    assert serve(requests, synchronous=synchronous)[1] == digest


def test_requests_beyond_the_slots_wait_their_turn() -> None:
    requests = [request(f"r{i}", max_tokens=20, seed=i) for i in range(24)]  # three times the slots
    answers, _, took = serve(requests, synchronous=False)
    assert [answer.ends for answer in answers] == [[(0, "LENGTH")]] * 24
    assert took == pytest.approx(60 * STEP_SECONDS, abs=6 * STEP_SECONDS)
