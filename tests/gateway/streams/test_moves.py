"""Streams whose requests move between groups: clients see what they would see of one group."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from albireo.contract import codec
from albireo.contract.plan import Finish
from albireo.v1 import inference_pb2 as api
from albireo.v1 import log_pb2 as log
from gateway.streams.router import Router
from tests.gateway.streams.scripted_logs import EPOCH, Counts, Logs, Row, read_all
from tests.gateway.streams.test_stream import CODEC, Scene

TEXTS = ("The fox 🦩 jumps over the lazy dog.", "Ünïcode is späß")
KINDS = ("open", "admit", "admit", "step", "step", "step", "preempt", "unfetched", "close", "end")
NOISE = 999
"""Incarnation of another gateway's request, which has a row in every step."""


@dataclass
class Branch:
    """One answer, as the groups compute it."""

    name: str
    ids: list[int]
    done: int = 0
    group: str = ""  # empty: it waits
    incarnation: int = 0
    end: Finish = Finish.NONE
    first_cached: list[int] = field(default_factory=list)  # of its admissions before the first token
    computed: bool = True  # since its last admission


class Fleet:
    """A scheduler and its groups, which move branches by what a test draws; writes the logs."""

    def __init__(self, branches: list[Branch]) -> None:
        self.logs = Logs()
        self.logs.open_epoch()
        self.branches = branches
        self._open: list[str] = []
        self._admissions: Counter[str] = Counter()  # by group: each numbers its own

    def act(self, data: st.DataObject) -> None:
        """One random thing happens."""
        kind = data.draw(st.sampled_from(KINDS))
        running = [branch for branch in self.branches if branch.group]
        waiting = [branch for branch in self.branches if not branch.group and not branch.end]
        if kind == "open" and len(self._open) < 3:
            self._open_group()
        elif kind == "admit" and waiting and self._open:
            self._admit(data.draw(st.sampled_from(waiting)), data.draw(st.sampled_from(self._open)))
        elif kind == "step" and self._open:
            self._step(data.draw(st.sampled_from(self._open)))
        elif kind == "preempt" and running:
            data.draw(st.sampled_from(running)).group = ""
        elif kind == "unfetched" and (fresh := [found for found in running if not found.computed]):
            self._unfetched(data.draw(st.sampled_from(fresh)))
        elif kind == "close" and self._open:
            self._close(data.draw(st.sampled_from(self._open)))
        elif kind == "end" and (running or waiting):
            self._end(data.draw(st.sampled_from(running + waiting)))

    def complete(self) -> None:
        """All that has not ended runs to its end."""
        if not self._open:
            self._open_group()
        for branch in self.branches:
            if not branch.group and not branch.end:
                self._admit(branch, self._open[0])
        while running := [branch for branch in self.branches if branch.group]:
            self._step(running[0].group)

    def _open_group(self) -> None:
        group = f"w{len(self.logs.entries)}"
        self._open.append(group)
        self.logs.open_group(group)

    def _admit(self, branch: Branch, group: str) -> None:
        self._admissions[group] += 1
        branch.group, branch.incarnation = group, self._admissions[group]
        branch.computed = False
        cached = self._admissions.total()
        if not branch.done:
            branch.first_cached.append(cached)
        admitted = log.Admitted(
            request_id=branch.name,
            incarnation=branch.incarnation,
            num_outputs=branch.done,
            num_cached=cached,
        )
        self.logs.step(group, [Row(NOISE, 7)], admitted=[admitted])

    def _step(self, group: str) -> None:
        rows = [Row(NOISE, 7)]
        for branch in self.branches:
            if branch.group == group:
                branch.computed = True
                token = branch.ids[branch.done]
                branch.done += 1
                if branch.done == len(branch.ids):
                    branch.end, branch.group = Finish.LENGTH, ""
                rows.append(Row(branch.incarnation, token, branch.end, -float(branch.done)))
        self.logs.step(group, rows)

    def _unfetched(self, branch: Branch) -> None:
        self.logs.step(branch.group, [Row(NOISE, 7)], unfetched=[branch.incarnation])
        branch.group = ""
        if not branch.done:
            branch.first_cached.pop()

    def _close(self, group: str) -> None:
        self._open.remove(group)
        self.logs.close_group(group)
        for branch in self.branches:
            if branch.group == group:
                branch.group = ""

    def _end(self, branch: Branch) -> None:
        branch.end = Finish.CANCELLED
        if branch.group:
            ended = log.Ended(request_id=branch.name, reason=codec.finish_name(branch.end))
            self.logs.step(branch.group, [Row(NOISE, 7)], ended=[ended])
            branch.group = ""
        else:
            self.logs.end_waiting(branch.name, branch.end, branch.done)


def portions(data: st.DataObject, logs: Logs, *, atomic: bool) -> list[Counts]:
    """What each read may find. ``atomic``: all logs as they were at one moment, as a store answers."""
    moments = sorted(data.draw(st.lists(st.integers(0, len(logs.written) - 1), max_size=8)))
    if atomic:
        return [logs.written[moment] for moment in moments]
    found: list[Counts] = []
    for _ in moments:
        last = found[-1] if found else {}
        found.append(
            {
                name: data.draw(st.integers(last.get(name, 0), len(entries)))
                for name, entries in logs.entries.items()
            }
        )
    return found


def received(events: list[api.GenerateEvent], index: int) -> tuple[list[int], list[float], str]:
    """Ids, log-probabilities and text of one branch, whose offsets are checked."""
    ids: list[int] = []
    logprobs: list[float] = []
    text = ""
    for event in events:
        if event.HasField("tokens") and event.tokens.index == index:
            assert event.tokens.offset == len(ids)
            ids += event.tokens.ids
            logprobs += [found.logprob for found in event.tokens.logprobs]
            text += event.tokens.text
    return ids, logprobs, text


async def run(data: st.DataObject, *, atomic: bool) -> None:
    stream = Scene(n=2)
    branches = [Branch(name, CODEC.encode(text)) for name, text in zip(stream.branches, TEXTS, strict=True)]
    fleet = Fleet(branches)
    for _ in range(data.draw(st.integers(0, 25))):
        fleet.act(data)
    fleet.complete()
    router = Router()
    router.register(stream)
    bound_late = data.draw(st.booleans())
    if not bound_late:
        router.bind(stream, EPOCH)
    steps = await read_all(fleet.logs, portions(data, fleet.logs, atomic=atomic), router)
    if bound_late:  # the answer to the submission arrives after all results
        router.bind(stream, EPOCH)
    assert stream.ended
    events = [event async for event in stream.events()]
    for index, branch in enumerate(branches):
        undisturbed = Scene()
        for token in branch.ids[: branch.done]:
            undisturbed.push(token, None, Finish.NONE)
        undisturbed.finish(branch.end)
        [*_, end] = expected = [event async for event in undisturbed.events()]
        ids, _, text = received(expected, 0)
        assert received(events, index) == (ids, [-float(n + 1) for n in range(branch.done)], text)
        [finished] = [e.finished for e in events if e.HasField("finished") and e.finished.index == index]
        assert finished.reason == end.finished.reason
        assert finished.usage.completion_tokens == branch.done
        assert finished.usage.cached_prompt_tokens in (branch.first_cached or [0])
    results = sum(len(found) for name, found in fleet.logs.entries.items() if name)
    openings = sum(1 for name in fleet.logs.entries if name)
    closings = sum(found[-1][0].step > 1 << 32 for name, found in fleet.logs.entries.items() if name)
    assert len(steps) == len(set(steps)) == results - openings - closings


@given(st.data())
def test_a_stream_that_moves_between_groups_is_as_if_it_had_not(data: st.DataObject) -> None:
    asyncio.run(run(data, atomic=True))


@given(st.data())
def test_whatever_the_order_in_which_the_logs_are_read(data: st.DataObject) -> None:
    """Each log for itself is read in order, that is all."""
    asyncio.run(run(data, atomic=False))
