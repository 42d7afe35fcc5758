"""Whatever stands in the inbox or in the results log, the scheduler refuses that alone and goes on.

What a submission may hold is what the API promises to take (``inference.proto``); ids lie in the vocabulary
that the group announced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, cast

import pytest

from albireo.contract.codec import columns
from albireo.contract.plan import Finish, GroupShape
from albireo.store.connection import connect
from albireo.store.interface import EntryId
from albireo.store.redis_log import FIELD
from albireo.v1 import log_pb2 as log
from tests.races.cluster import RedisCluster
from tests.races.scene import Reader, Scene, Story
from tests.scheduler_svc.core.samples import prompt
from tests.scheduler_svc.core.worker_model import VOCAB

MAX_LEN = 256
Spoil = Callable[[log.Submission], Any]

BAD: dict[str, Spoil] = {
    "prompt id": lambda m: m.prompt.append(VOCAB),
    "huge prompt id": lambda m: m.prompt.append(2**32 - 1),
    "empty prompt": lambda m: m.ClearField("prompt"),
    "long prompt": lambda m: m.prompt.extend([1] * MAX_LEN),
    "stop id": lambda m: m.sampling.stop_ids.append(VOCAB),
    "allowed id": lambda m: m.sampling.allowed_ids.append(VOCAB),
    "bad id": lambda m: m.sampling.bad_ids.append(VOCAB),
    "bias id": lambda m: m.sampling.MergeFrom(log.Sampling(bias_ids=[VOCAB], biases=[1])),
    "many ids": lambda m: m.sampling.bad_ids.extend([1] * 1025),
    "bias": lambda m: m.sampling.MergeFrom(log.Sampling(bias_ids=[1], biases=[math.inf])),
    "no tokens": lambda m: m.sampling.ClearField("max_tokens"),
    "min above max": lambda m: setattr(m.sampling, "min_tokens", 9),
    "temperature": lambda m: setattr(m.sampling, "temperature", math.nan),
    "negative temperature": lambda m: setattr(m.sampling, "temperature", -1),
    "top_p": lambda m: setattr(m.sampling, "top_p", 0),
    "top_k": lambda m: setattr(m.sampling, "top_k", 2**31),
    "min_p": lambda m: setattr(m.sampling, "min_p", 2),
    "typical_p": lambda m: setattr(m.sampling, "typical_p", 0),
    "repetition_penalty": lambda m: setattr(m.sampling, "repetition_penalty", 0),
    "frequency_penalty": lambda m: setattr(m.sampling, "frequency_penalty", math.inf),
    "logprobs": lambda m: setattr(m.sampling, "logprobs", 21),
    "prompt_logprobs": lambda m: setattr(m.sampling, "prompt_logprobs", -2),
    "priority": lambda m: setattr(m, "priority", 101),
    "timeout": lambda m: setattr(m, "timeout_ms", 2**32 - 1),
    "tenant": lambda m: setattr(m, "tenant", "a tenant"),
    "traceparent": lambda m: setattr(m, "traceparent", "0" * 1000),
}

NONSENSE: dict[str, dict[Any, Any]] = {
    "no protobuf": {FIELD: b"\xff\xff\xff"},
    "empty": {FIELD: b""},
    "another field": {b"other": b"x"},
    "no UTF-8": {FIELD: b"\x12\x03\x0a\x01\xff"},
    "no name": {FIELD: log.InboxEntry(submission=log.Submission()).SerializeToString()},
    "lengths that differ": {
        FIELD: log.InboxEntry(
            submission=log.Submission(request_id="x", prompt=[1], sampling=log.Sampling(bias_ids=[1]))
        ).SerializeToString()
    },
    "very many branches": {
        FIELD: log.InboxEntry(
            submission=log.Submission(request_id="x", prompt=[1], n=2**32 - 1)
        ).SerializeToString()
    },
    "a long name to cancel": {
        FIELD: log.InboxEntry(cancellation=log.Cancellation(request_id="x" * 100_000)).SerializeToString()
    },
}


@pytest.fixture
def scene(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr("scheduler_svc.service.HOUSEKEEPING_SECONDS", 0.05)
    with ExitStack() as closing:
        found = Scene(RedisCluster(redis_url), shape=GroupShape(64, 4, MAX_LEN))
        closing.callback(found.close)
        yield found


def send(scene: Scene, name: str, spoil: Spoil) -> None:
    """A submission that is in order but for what ``spoil`` makes of it."""
    controls = {"top_p": 1, "typical_p": 1, "repetition_penalty": 1, "logprobs": -1, "prompt_logprobs": -1}
    sampling = log.Sampling(max_tokens=4, ignore_eos=True, **controls)  # type: ignore[arg-type]
    message = log.Submission(request_id=name, prompt=[5, 6, 7], tenant="default", sampling=sampling)
    spoil(message)
    scene.cluster.increment(scene.keys.waiting, 1)
    entry = log.InboxEntry(submission=message)
    scene.cluster.append(scene.keys.inbox, entry.SerializeToString())


def test_only_the_request_out_of_bounds_is_refused(scene: Scene) -> None:
    names = {kind: f"r{index}" for index, kind in enumerate(BAD)}
    scene.submit("before", prompt(10))
    for kind, name in names.items():
        send(scene, name, BAD[kind])
    send(scene, "in-order", lambda _: None)
    scene.submit("after", prompt(10, 1))
    scene.finish(*names.values(), "in-order")
    stories = {kind: scene.story(name) for kind, name in names.items()}
    assert stories == dict.fromkeys(names, Story([], Finish.ERROR))
    assert scene.story("in-order").final is Finish.LENGTH
    for name in ("before", "after"):
        assert scene.story(name) == scene.alone(name)


def test_an_invalid_inbox_entry_is_skipped(scene: Scene, redis_url: str) -> None:
    redis = connect(redis_url)
    scene.submit("before", prompt(10))
    for fields in NONSENSE.values():
        redis.xadd(scene.keys.inbox, fields)
    scene.submit("after", prompt(10, 1))
    scene.finish()
    for name in ("before", "after"):
        assert scene.story(name) == scene.alone(name)


@pytest.mark.parametrize(
    "entry",
    [
        b"\xff\xff",
        b"",
        log.ResultEntry(result=log.StepResult(**columns([0], [1], [1], []))).SerializeToString(),
        log.ResultEntry(result=log.StepResult(**columns([0], [1], [1], [77]))).SerializeToString(),
    ],
    ids=["no protobuf", "empty", "lengths that differ", "no finish"],
)
def test_a_result_that_cannot_be_read_ends_the_epoch_and_not_the_service(scene: Scene, entry: bytes) -> None:
    scene.submit("a", prompt(10))
    plan, _ = scene.fill()
    assert not scene.cluster.refuses(scene.keys.results, EntryId(plan.epoch, plan.step), entry)
    scene.schedulers[-1].join()
    assert f"result {plan.epoch}-{plan.step}" in str(scene.schedulers[-1].error)
    scene.restart_scheduler()
    scene.reader = Reader(scene.cluster, scene.keys)  # it cannot read that entry either
    scene.submit("b", prompt(10, 1))
    scene.finish()
    assert scene.story("b") == scene.alone("b")


def test_an_announcement_that_cannot_be_read_is_no_group(scene: Scene) -> None:
    announced = cast("bytes", scene.cluster.get(scene.keys.group))
    scene.cluster.set(scene.keys.group, b"\xff\xff")
    scene.group.wait_closed()
    scene.cluster.set(scene.keys.group, announced)
    scene.wait_for(lambda: scene.cluster.get(scene.keys.serving) == b"1", "no epoch for the new group")
    scene.group.wait_epoch(after=scene.group.epoch)
