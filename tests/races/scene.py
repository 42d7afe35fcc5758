"""A real scheduler between a scripted group and a reader of the results log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from albireo.contract import codec
from albireo.contract.keys import Keys
from albireo.contract.plan import Finish, GroupShape, Plan, SamplingParams, Submission, branches, public_name
from albireo.runtime.process import HealthServer
from albireo.store.connection import connect
from albireo.store.interface import Fenced
from albireo.store.redis_store import FIELD, RedisLog
from albireo.v1 import control_pb2 as control
from albireo.v1 import log_pb2 as log
from scheduler_svc.core import ProtocolError
from scheduler_svc.service import SchedulerService
from scheduler_svc.settings import SchedulerSettings
from tests.races.fake_worker import FakeGroup, entries_after
from tests.scheduler_svc.core.worker_model import solo

MODEL = "tiny"


class SchedulerThread:
    """The scheduler service in a thread of its own."""

    def __init__(self, url: str, **options: object) -> None:
        settings = SchedulerSettings.model_validate({"redis_url": url, "model_name": MODEL, **options})
        self._health = HealthServer("127.0.0.1", 0)
        self._stop = threading.Event()
        self.error: Fenced | ProtocolError | None = None
        self._service = SchedulerService(settings, self._health, self._stop)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._service.run()
        except (Fenced, ProtocolError) as error:
            self.error = error

    def join(self, seconds: float = 5) -> None:
        """Waits until it has ended by itself."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the scheduler goes on"

    def stop(self) -> None:
        """Stops it and gives its lease back."""
        self._stop.set()
        self.join()
        self._health.stop()


@dataclass
class Story:
    """What a reader of the results log has seen of one request."""

    ids: list[int] = field(default_factory=list)
    final: Finish = Finish.NONE


class Reader:
    """Folds the results log as a gateway does: the first end that is read counts, no row may follow it."""

    def __init__(self, url: str, keys: Keys) -> None:
        self._redis = connect(url)
        self._key = keys.results
        self._after = RedisLog(self._redis, keys.results).last()
        self._names: dict[int, str] = {}  # by incarnation, in the current epoch
        self.stories: dict[str, Story] = {}
        self.opened: list[log.EpochOpen] = []

    def read(self) -> None:
        """Takes in what has come since."""
        for raw_id, data in entries_after(self._redis, self._key, self._after):
            self._after = raw_id.decode()
            self._take(log.ResultEntry.FromString(data))

    def forget(self, incarnation: int) -> None:
        """Rows of this incarnation that come from now on are none of a worker's: nothing is known of them."""
        del self._names[incarnation]

    def _take(self, entry: log.ResultEntry) -> None:
        if entry.WhichOneof("entry") == "open":
            self.opened.append(entry.open)
            self._names.clear()
            self.stories = {name: story for name, story in self.stories.items() if story.final}
            return
        result = entry.result
        for admitted in result.admitted:
            name = self._names[admitted.incarnation] = public_name(admitted.request_id)
            story = self.stories.setdefault(name, Story())
            assert admitted.num_outputs == len(story.ids)
        for incarnation, token, finish in zip(result.incarnations, result.ids, result.finishes, strict=True):
            if incarnation in self._names:
                story = self.stories[self._names[incarnation]]
                assert not story.final, "a row after the end"
                story.ids.append(token)
                story.final = Finish(finish)
        for ended in result.ended:
            story = self.stories.setdefault(public_name(ended.request_id), Story())
            story.final = story.final or Finish(ended.reason)


class Scene:
    """Requests go in on one side and are read on the other; the group between is the test's to move."""

    def __init__(
        self,
        url: str,
        *,
        shape: GroupShape,
        script: Mapping[str, Sequence[int]] | None = None,
        look_ahead: int = 1,
        **options: object,
    ) -> None:
        self.url = url
        self.keys = Keys(MODEL)
        self.look_ahead = look_ahead
        self.group = FakeGroup(url, self.keys, shape, script=script)
        self.reader = Reader(url, self.keys)
        self.redis = connect(url)
        self.submissions: dict[str, Submission] = {}  # by branch name
        self._options = {"look_ahead": str(look_ahead), **options}
        self.schedulers = [SchedulerThread(url, **self._options)]
        self.group.wait_epoch()

    def restart_scheduler(self) -> None:
        """The requests of the old one are given up."""
        self.schedulers[-1].stop()
        self.submissions.clear()
        self.schedulers.append(SchedulerThread(self.url, **self._options))
        self.group.wait_epoch(after=self.group.epoch)

    def replace_group(self) -> None:
        """Another incarnation comes up where the last one is gone."""
        self.group = FakeGroup(self.url, self.keys, self.group.shape)
        self.group.wait_epoch()

    def close(self) -> None:
        self.schedulers[-1].stop()
        self.group.lease.release()
        assert self.schedulers[-1].error is None

    def submit(
        self,
        request_id: str,
        prompt: tuple[int, ...],
        *,
        max_tokens: int = 8,
        ignore_eos: bool = True,
        timeout_s: float | None = None,
        n: int = 1,
    ) -> None:
        """As the gateway's script does it."""
        sampling = SamplingParams(max_tokens=max_tokens, seed=0, ignore_eos=ignore_eos)
        submission = Submission(request_id, prompt, sampling, timeout_s=timeout_s, n=n)
        self.submissions |= {branch.request_id: branch for branch in branches(submission)}
        self.redis.incrby(self.keys.waiting, n)
        self.redis.xadd(self.keys.inbox, {FIELD: codec.submission_to_bytes(submission)})

    def cancel(self, request_id: str) -> None:
        self.redis.xadd(self.keys.inbox, {FIELD: codec.cancellation_to_bytes(request_id)})

    def fill(self) -> list[Plan]:
        """As many plans as the window takes; makes sure that there is not one more."""
        plans = [self.group.next_plan() for _ in range(self.look_ahead + 1)]
        assert self.group.plan_within(0.1) is None, "a plan beyond the window"
        return plans

    def wait_read(self) -> None:
        """Waits until the scheduler has taken in all that is in its logs, and waits for more.

        Redis lets a blocked reader go within the write that it waited for. So from there on, a reader that
        is blocked is one that has taken that in.
        """
        wait_for(lambda: self.redis.info("clients")["blocked_clients"] > 0, "the scheduler does not read")

    def story(self, request_id: str) -> Story:
        self.reader.read()
        return self.reader.stories.get(request_id) or Story()

    def load(self) -> control.Load:
        data = cast("bytes | None", self.redis.get(self.keys.load))
        return control.Load.FromString(data or b"")

    def alone(self, request_id: str) -> Story:
        """What a request brings where nothing else runs."""
        submission = self.submissions[request_id]
        return Story(*solo(submission.prompt, submission.sampling, self.group.shape.max_model_len))

    def finish(self, *others: str, hold: int = 0) -> list[Plan]:
        """Answers until every request has ended, and checks that nothing is left of them.

        ``others``: requests that another client submitted.
        """
        names = (*self.submissions, *others)
        plans = self.group.serve_until(lambda: self._idle(names), hold=hold)
        load = self.load()
        assert list(load.integrity_violations) == []
        assert load.slots_free == load.slots_total
        assert load.blocks_free == load.blocks_total
        assert self.redis.get(self.keys.waiting) == b"0"
        return plans

    def _idle(self, names: Sequence[str]) -> bool:
        load = self.load()
        return (
            all(self.story(name).final for name in names)
            and load.epoch == self.group.epoch
            and not (load.waiting or load.running or load.steps_in_flight)
            and load.step == load.integrity_checked_step == self.group.table.step
        )


def wait_for(condition: Callable[[], bool], otherwise: str, *, seconds: float = 10) -> None:
    """Waits until ``condition`` holds; fails with ``otherwise``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)
