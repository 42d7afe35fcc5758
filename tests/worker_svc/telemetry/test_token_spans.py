"""Spans of prefill and decode: made when they are over, whatever ends them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from albireo.contract.plan import Admission, Ended, Finish, Plan, SamplingParams
from albireo.v1 import control_pb2 as control
from tests.albireo.telemetry.kept import PARENT_ID, TRACEPARENT, KeptTelemetry
from worker_svc.telemetry.token_spans import TokenSpans

SAMPLING = SamplingParams(max_tokens=8, seed=0)
FINISH = "gen_ai.response.finish_reasons"
TOKENS = "gen_ai.usage.output_tokens"


def admission(name: str = "r", slot: int = 0, outputs: int = 0, traceparent: str = TRACEPARENT) -> Admission:
    return Admission(slot, 1, name, (1,) * (20 + outputs), outputs, 16, SAMPLING, traceparent)


class Scene:
    """Step ``k`` runs from ``10 k`` to ``10 k + 8``."""

    def __init__(self) -> None:
        self._telemetry = KeptTelemetry()
        self.spans = TokenSpans(self._telemetry.tracer)
        self.outputs = np.zeros(4, dtype=np.int64)
        self._step = 0

    def step(self, rows: dict[int, Finish], *, epoch: int = 1, **plan: Any) -> None:
        """Runs the next step; ``rows``: slots that bring a token, and whether it is their last."""
        self._step += 1
        made = Plan(epoch, self._step, **plan)
        self.spans.release(made, self.outputs)
        for admitted in made.admissions:
            self.outputs[admitted.slot] = admitted.num_outputs
        slots = np.array(list(rows), dtype=np.int64)
        self.outputs[slots] += 1
        timing = control.StepTiming(forward_begin=10 * self._step, sampling_end=10 * self._step + 8)
        self.spans.step(made, timing, slots, [int(finish) for finish in rows.values()], self.outputs)

    @property
    def recorded(self) -> list[tuple[str, int | None, int | None]]:
        for span in self._telemetry.spans:
            assert span.parent is not None
            assert f"{span.parent.span_id:016x}" == PARENT_ID
        return [(span.name, span.start_time, span.end_time) for span in self._telemetry.spans]

    def attributes(self, index: int) -> dict[str, Any]:
        return dict(self._telemetry.spans[index].attributes or {})


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_prefill_ends_with_the_first_token_and_decode_with_the_last(scene: Scene) -> None:
    scene.step({}, admissions=(admission("r#1"),))
    scene.step({0: Finish.NONE})
    assert scene.recorded == [("prefill", 10, 28)]
    for _ in range(3):
        scene.step({0: Finish.NONE})
    scene.step({0: Finish.STOP})
    assert scene.recorded == [("prefill", 10, 28), ("decode", 28, 68)]
    assert scene.attributes(0) == {
        "gen_ai.response.id": "r",
        "albireo.branch": 1,
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 16,
    }
    assert (scene.attributes(1)[TOKENS], scene.attributes(1)[FINISH]) == (5, ("stop",))
    assert len(scene.spans) == 0
    scene.step({}, released=(0,))
    assert len(scene.recorded) == 2


def test_a_request_of_one_token_has_both(scene: Scene) -> None:
    scene.step({0: Finish.LENGTH}, admissions=(admission(),))
    assert scene.recorded == [("prefill", 10, 18), ("decode", 18, 18)]


def test_what_is_not_traced_is_not_kept(scene: Scene) -> None:
    scene.step({0: Finish.NONE}, admissions=(admission(traceparent=""),))
    assert len(scene.spans) == 0
    assert scene.recorded == []


def test_a_preempted_request_tells_both_parts_and_then_again(scene: Scene) -> None:
    scene.step({0: Finish.NONE}, admissions=(admission(),))
    scene.step({0: Finish.NONE})
    # Its slot goes to another at once.
    scene.step({0: Finish.NONE}, released=(0,), admissions=(admission("other", traceparent=""),))
    assert scene.recorded == [("prefill", 10, 18), ("decode", 18, 28)]
    assert scene.attributes(1)["albireo.preempted"] is True
    assert scene.attributes(1)[TOKENS] == 2
    scene.step({1: Finish.NONE}, admissions=(admission(slot=1, outputs=2),))
    scene.step({1: Finish.LENGTH})
    assert scene.recorded[2:] == [("prefill", 40, 48), ("decode", 48, 58)]
    assert scene.attributes(2)["albireo.recomputed_tokens"] == 2
    assert scene.attributes(2)["gen_ai.usage.input_tokens"] == 20
    assert scene.attributes(3)[TOKENS] == 2
    assert len(scene.spans) == 0


@pytest.mark.parametrize("reason", [Finish.CANCELLED, Finish.DEADLINE])
def test_who_is_ended_says_why(scene: Scene, reason: Finish) -> None:
    scene.step({1: Finish.NONE}, admissions=(admission("early"), admission("late", slot=1)))
    ended = (Ended("early", reason), Ended("late", reason))
    scene.step({}, released=(0, 1), ended=ended)
    assert sorted(scene.recorded) == [("decode", 18, 18), ("prefill", 10, 18), ("prefill", 10, 18)]
    assert [scene.attributes(n).get(FINISH) for n in (1, 2)] == [(reason.name.lower(),)] * 2
    assert len(scene.spans) == 0


def test_an_epochs_end_ends_what_runs(scene: Scene) -> None:
    scene.step({0: Finish.NONE}, admissions=(admission(), admission("s", slot=1)))
    scene.step({}, epoch=2)
    assert sorted(scene.recorded) == [("decode", 18, 18), ("prefill", 10, 18), ("prefill", 10, 18)]
    assert len(scene.spans) == 0
    scene.step({}, epoch=2, admissions=(admission(),))
    scene.spans.close()
    assert scene.recorded[-1] == ("prefill", 30, 38)
    assert len(scene.spans) == 0


def test_no_span_is_made_per_step(scene: Scene) -> None:
    scene.step({0: Finish.NONE}, admissions=(admission(),))
    for _ in range(500):
        scene.step({0: Finish.NONE})
    assert len(scene.recorded) == 1
