"""Whatever stands in the inbox or in the results log, the scheduler refuses that alone and goes on.

What a submission may hold is what the API promises to take (``inference.proto``); ids lie in the vocabulary
that the group announced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from albireo.contract.plan import Finish, GroupShape
from albireo.contract.result_rows import columns
from albireo.store.connection import connect
from albireo.store.interface import EntryId
from albireo.store.redis_log import FIELD
from albireo.v1 import log_pb2 as log
from tests.races.cluster import RedisCluster
from tests.races.reader import Story
from tests.races.scene import Scene
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
def test_a_result_that_cannot_be_read_ends_its_group_and_nothing_else(scene: Scene, entry: bytes) -> None:
    scene.submit("a", prompt(10))
    plan, _ = scene.fill()
    scene.group.run(plan)
    assert not scene.cluster.refuses(scene.group.results_key, EntryId(plan.epoch, plan.step), entry)
    scene.group.wait_closed()
    scene.reader.read()
    [closed] = scene.reader.closed
    assert f"result {plan.epoch}-{plan.step}" in closed.reason
    scene.replace_group()
    scene.submit("b", prompt(10, 1))
    scene.finish()
    for name in "ab":
        assert scene.story(name) == scene.alone(name)


@pytest.mark.parametrize(
    ("announcement", "problem"),
    [
        (b"\xff\xff", "cannot be read"),
        (b"", "another incarnation"),
        (log.GroupInfo(incarnation="x", tp=1).SerializeToString(), "num_blocks"),
    ],
    ids=["no protobuf", "empty", "without blocks"],
)
def test_a_group_that_announces_nonsense_is_left_alone(
    scene: Scene, caplog: pytest.LogCaptureFixture, announcement: bytes, problem: str
) -> None:
    store = scene.cluster.open_store(scene.keys)
    scene.cluster.set(scene.keys.group("x"), announcement)
    store.register("x")
    scene.submit("a", prompt(10))
    scene.finish()
    scene.wait_for(lambda: "group x is not led" in caplog.text, "it is not refused")
    assert scene.story("a") == scene.alone("a")
    assert problem in caplog.text
    assert caplog.text.count("group x is not led") == 1
    assert [opening.group for opening in scene.reader.opened] == [scene.group.incarnation]
