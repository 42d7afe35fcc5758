"""A stack with one slot, a queue of two and a short cap on every request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from albireo.v1 import inference_pb2 as api
from tests.stack import Answer, ask, request, running_stack, wait_for


def test_a_full_queue_pushes_back_and_the_cap_ends_what_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALBIREO_WORKER_MAX_SEQS", "1")
    monkeypatch.setenv("ALBIREO_GATEWAY_MAX_QUEUE", "2")
    monkeypatch.setenv("ALBIREO_GATEWAY_MAX_DEADLINE_SECONDS", "2")
    long = request("Tell me a story about a fox.", max_tokens=900, ignore_eos=True)
    with running_stack(tmp_path) as small:
        running = small.inference.Generate(long, timeout=60)
        first = [next(running), next(running)]  # it has the slot
        waiting = [small.inference.Generate(long, timeout=60) for _ in range(2)]
        accepted = [next(call) for call in waiting]
        assert [event.WhichOneof("event") for event in accepted] == ["accepted"] * 2
        with pytest.raises(grpc.RpcError) as raised:
            ask(small, long)
        error: Any = raised.value
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
        answers = [Answer([*first, *running])]
        answers += [Answer([event, *call]) for event, call in zip(accepted, waiting, strict=True)]
        assert answers[-1].finished.reason == api.FINISH_REASON_DEADLINE
        assert answers[-1].finished.usage.completion_tokens == len(answers[-1].ids) < 900
        wait_for(lambda: small.load().waiting == 0, 10, "requests past their deadline still wait")
        assert ask(small, request("What is 1 + 1?", max_tokens=8)).kinds[-1] == "finished"
        load = small.wait_idle()
    assert (load.slots_free, load.blocks_free) == (1, load.blocks_total)
    assert list(load.integrity_violations) == []
