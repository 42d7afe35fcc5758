"""One gateway, real processes behind it: two cells of a model, and another model that comes while it runs."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import grpc
import pytest

from albireo.models import TINY
from albireo.v1 import control_pb2
from tests.stack import Answer, Running, ask, request, running_stack, wait_for
from tests.streams import rest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

STREAMS = 24


def tokens_of(running: Running) -> list[int]:
    """How many the groups behind a gateway have computed, as they reported within the last second."""
    return [group.output_tokens for group in running.load().groups]


def test_one_gateway_serves_two_cells_and_a_model_that_comes_later(tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(TINY, models / "other")
    with running_stack(tmp_path / "b") as second:
        environment = {
            "ALBIREO_GATEWAY_CELLS": second.stack.address,
            "ALBIREO_GATEWAY_MODELS": str(models),
        }
        with running_stack(tmp_path / "a", environment) as both:
            wait_for(lambda: len(both.load().groups) == 2, 20, "the second cell is not followed")
            both_cells_share(both, second)
            redis_url = both.stack.address
            with running_stack(tmp_path / "c", redis_url=redis_url, model_name="other") as other:
                another_model(both, other)


def both_cells_share(both: Running, second: Running) -> None:
    """Concurrent requests run in both, and have the tokens that they would have in one."""
    prompts = [f"Count from {number} on: " for number in range(STREAMS)]
    calls = [both.inference.Generate(request(prompt), timeout=60) for prompt in prompts]
    answers = [Answer(rest(call)) for call in calls]
    assert Counter(answer.kinds[-1] for answer in answers) == {"finished": STREAMS}
    total = sum(len(answer.ids) for answer in answers)
    wait_for(lambda: sum(tokens_of(both)) == total, 10, "not all tokens were reported")
    assert min(tokens_of(both)) > total / 4
    alone = [ask(second, request(prompt)) for prompt in prompts]
    assert [answer.ids for answer in answers] == [answer.ids for answer in alone]


def another_model(both: Running, other: Running) -> None:
    """It is found, and answers under its name."""

    def names() -> list[str]:
        return list(both.control.GetServerInfo(control_pb2.GetServerInfoRequest(), timeout=5).models)

    wait_for(lambda: names() == ["other", "tiny"], 20, "the other model was not found")
    message = request("Hello")
    message.model = "other"
    wait_for(lambda: _is_known(both, "other"), 20, "no group of the other model")
    answer = ask(both, message)
    wait_for(lambda: tokens_of(other) == [len(answer.ids)], 10, "it was not the other model that answered")
    assert ask(other, request("Hello")).ids == answer.ids


def _is_known(running: Running, model: str) -> bool:
    try:
        running.control.GetModelInfo(control_pb2.GetModelInfoRequest(model=model), timeout=5)
    except grpc.RpcError:  # not yet
        return False
    return True
