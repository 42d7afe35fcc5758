"""A real scheduler between a scripted group and a reader of the logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from albireo.contract import codec
from albireo.contract.keys import Keys
from albireo.contract.plan import GroupShape, Plan, SamplingParams, Submission, branches
from albireo.store.interface import Fenced
from albireo.v1 import control_pb2 as control
from scheduler_svc.service import SchedulerService
from scheduler_svc.settings import SchedulerSettings
from tests.races.cluster import Cluster
from tests.races.fake_worker import FakeGroup, serve_until
from tests.races.reader import Reader, Story
from tests.scheduler_svc.core.worker_model import solo

MODEL = "tiny"


class Health:
    """Where a service under test says whether it serves."""

    serving = False

    def set(self, *, serving: bool) -> None:
        self.serving = serving


class RunningScheduler:
    """The scheduler service in a thread of the cluster's clock."""

    def __init__(self, cluster: Cluster, **options: object) -> None:
        settings = SchedulerSettings.model_validate({"model_name": MODEL, **options})
        self._stop = cluster.clock.event()
        self.error: Fenced | None = None
        self._service = SchedulerService(
            settings,
            Health(),
            self._stop,
            clock=cluster.clock,
            open_store=lambda: cluster.open_store(Keys(MODEL)),
        )
        self._thread = cluster.clock.start("scheduler", self._run)

    def _run(self) -> None:
        try:
            self._service.run()
        except Fenced as error:
            self.error = error

    def join(self, seconds: float = 5) -> None:
        """Waits until it has ended by itself."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the scheduler goes on"

    def stop(self) -> None:
        """Stops it; it gives its lease back."""
        self._stop.set()
        self.join()


class Scene:
    """Requests go in on one side and are read on the other; the group between is the test's to move."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        shape: GroupShape,
        script: Mapping[str, Sequence[int]] | None = None,
        look_ahead: int = 1,
        **options: object,
    ) -> None:
        self.cluster = cluster
        self.keys = Keys(MODEL)
        self.look_ahead = look_ahead
        self.group = FakeGroup(cluster, self.keys, shape, script=script)
        self.groups = [self.group]
        """Those that :meth:`finish` moves."""
        self.reader = Reader(cluster, self.keys)
        self.submissions: dict[str, Submission] = {}  # by branch name
        # Scripted groups move by hand and show no heartbeat.
        self._options = {"look_ahead": str(look_ahead), "heartbeat_seconds": 600, **options}
        self.schedulers = [RunningScheduler(cluster, **self._options)]
        self.group.wait_epoch()

    def restart_scheduler(self) -> None:
        """The requests of the old one are given up."""
        self.schedulers[-1].stop()
        self.submissions.clear()
        self.schedulers.append(RunningScheduler(self.cluster, **self._options))
        self.group.wait_epoch(after=self.group.epoch)

    def add_group(self, shape: GroupShape | None = None, **options: Any) -> FakeGroup:
        """Another group joins."""
        group = FakeGroup(self.cluster, self.keys, shape or self.group.shape, **options)
        group.wait_epoch()
        self.groups.append(group)
        return group

    def replace_group(self) -> None:
        """Another incarnation comes up where the last one is gone."""
        self.groups.remove(self.group)
        self.group = self.add_group()

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
        priority: int = 0,
    ) -> None:
        """As the gateway's script does it."""
        sampling = SamplingParams(max_tokens=max_tokens, seed=0, ignore_eos=ignore_eos)
        submission = Submission(request_id, prompt, sampling, timeout_s=timeout_s, n=n, priority=priority)
        self.submissions |= {branch.request_id: branch for branch in branches(submission)}
        self.cluster.increment(self.keys.waiting, n)
        self.cluster.append(self.keys.inbox, codec.submission_to_bytes(submission))

    def cancel(self, request_id: str) -> None:
        self.cluster.append(self.keys.inbox, codec.cancellation_to_bytes(request_id))

    def fill(self) -> list[Plan]:
        """As many plans as the window takes; makes sure that there is not one more."""
        plans = [self.group.next_plan() for _ in range(self.look_ahead + 1)]
        assert self.group.plan_within(0.1) is None, "a plan beyond the window"
        return plans

    def wait_for(self, condition: Callable[[], bool], otherwise: str, *, seconds: float = 10) -> None:
        """Waits until ``condition`` holds; fails with ``otherwise``."""
        deadline = self.cluster.clock.now() + seconds
        while not condition():
            assert self.cluster.clock.now() < deadline, otherwise
            self.cluster.clock.sleep(0.01)

    def story(self, request_id: str) -> Story:
        self.reader.read()
        return self.reader.story(request_id)

    def load(self) -> control.Load:
        data = self.cluster.get(self.keys.load)
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
        plans = serve_until(self.cluster.clock, self.groups, lambda: self._idle(names), hold=hold)
        load = self.load()
        assert list(load.integrity_violations) == []
        assert load.slots_free == load.slots_total
        assert load.blocks_free == load.blocks_total
        assert self.cluster.get(self.keys.waiting) == b"0"
        return plans

    def _idle(self, names: Sequence[str]) -> bool:
        load = self.load()
        steps = {group.incarnation: group.step for group in load.groups}
        return (
            all(self.story(name).final for name in names)
            and all((load.epoch, steps.get(g.incarnation)) == (g.epoch, g.table.step) for g in self.groups)
            and not (load.waiting or load.running or load.steps_in_flight)
            and load.step == load.integrity_checked_step
        )
