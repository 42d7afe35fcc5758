"""The fair queue against the virtual token counter as its paper writes it down, and the paper's bound."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from albireo.contract.plan import SamplingParams, Submission
from scheduler_svc.core import fair_queue
from scheduler_svc.core.fair_queue import FairQueue
from scheduler_svc.core.request import Request

WEIGHTS = {"a": 1.0, "b": 2.0, "c": 4.0}
PREFILL_WEIGHT = 1.0
DECODE_WEIGHT = 2.0


def request(
    number: int, tenant: str = "a", *, tokens: int = 10, outputs: int = 1, earlier: float = 0
) -> Request:
    """``number``: of its arrival, one a second. ``earlier``: its head start in seconds."""
    submission = Submission(
        f"r{number}", tuple(range(tokens)), SamplingParams(max_tokens=outputs, seed=0), tenant=tenant
    )
    return Request(
        submission, (number - earlier, number), array("I", submission.prompt), tokens + outputs, b""
    )


class PaperQueue:
    """The paper's algorithm, with weights, by linear searches; before it those that came back."""

    def __init__(self, weights: dict[str, float]) -> None:
        self.weights = weights
        self.counters: dict[str, float] = {}
        self.joined: dict[str, int] = {}
        self.returned: list[Request] = []
        self.queue: list[Request] = []
        self.left_last = ""

    def push(self, new: Request) -> None:
        tenant = new.submission.tenant
        waiting = {r.submission.tenant for r in self.queue}
        if tenant not in waiting:
            levels = [self.counters[name] for name in waiting] or [self.counters.get(self.left_last, 0.0)]
            self.counters[tenant] = max(self.counters.get(tenant, 0.0), min(levels))
            self.joined[tenant] = len(self.joined) and max(self.joined.values()) + 1
        self.queue.append(new)

    def remove(self, old: Request) -> None:
        if old in self.returned:
            self.returned.remove(old)
        else:
            self.queue.remove(old)
            if not self.queue:
                self.left_last = old.submission.tenant

    def charge(self, tenant: str, service: float) -> None:
        self.counters[tenant] = self.counters.get(tenant, 0.0) + service / self.weights.get(tenant, 1.0)

    def in_order(self) -> list[Request]:
        found = sorted(self.returned, key=lambda r: r.order)
        counters, queue = dict(self.counters), sorted(self.queue, key=lambda r: r.order)
        while queue:
            first = min(
                queue, key=lambda r: (counters[r.submission.tenant], self.joined[r.submission.tenant])
            )
            tenant = first.submission.tenant
            counters[tenant] += PREFILL_WEIGHT * len(first.submission.prompt) / self.weights.get(tenant, 1.0)
            queue.remove(first)
            found.append(first)
        return found


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_queue_orders_as_the_paper_writes_it_down(data: st.DataObject) -> None:
    queue, paper = FairQueue(prefill_weight=PREFILL_WEIGHT), PaperQueue(WEIGHTS)
    queue.set_weights(WEIGHTS)
    tenants = st.sampled_from("abcd")
    for number in range(data.draw(st.integers(1, 40))):
        act = data.draw(st.sampled_from(("push", "push", "push_front", "take", "remove", "charge")))
        waiting = paper.in_order()
        if act == "push":
            earlier = data.draw(st.integers(-3, 3)) * 10.0
            new = request(number, data.draw(tenants), tokens=data.draw(st.integers(1, 30)), earlier=earlier)
            queue.push(new)
            paper.push(new)
        elif act == "push_front":
            new = request(number, data.draw(tenants), earlier=data.draw(st.integers(0, 9)) * 10.0)
            queue.push_front(new)
            paper.returned.append(new)
        elif act == "charge":
            tenant, service = data.draw(tenants), float(data.draw(st.integers(1, 50)))
            queue.charge(tenant, service)
            paper.charge(tenant, service)
        elif waiting:
            old = waiting[0] if act == "take" else data.draw(st.sampled_from(waiting))
            queue.remove(old)
            paper.remove(old)
            queue.remove(old)
        waiting = paper.in_order()
        assert list(queue.in_order()) == waiting
        others = [item for item in waiting if item in paper.returned or item.submission.tenant != "a"]
        assert list(queue.in_order(without=lambda tenant: tenant == "a")) == others
        assert next(queue.in_order(), None) is (waiting[0] if waiting else None)
        assert len(queue) == len(waiting)
        assert set(queue) == set(waiting)
        assert all(item in queue for item in waiting)
        assert request(number, "a") not in queue


class Server:
    """Continuous batching as in the paper: a batch of at most ``capacity`` tokens, one output each a step."""

    def __init__(self, queue: FairQueue, capacity: int, weights: dict[str, float]) -> None:
        self.queue = queue
        self.capacity = capacity
        self.weights = weights
        self.running: dict[Request, int] = {}  # outputs that are left
        self.service: dict[str, float] = defaultdict(float)  # divided by weight

    def step(self) -> None:
        while (first := next(self.queue.in_order(), None)) and first.end <= self.free:
            self.queue.remove(first)
            self.running[first] = first.submission.sampling.max_tokens
            self._serve(first, PREFILL_WEIGHT * len(first.submission.prompt))
        assert self.running or not self.queue
        for running in list(self.running):
            self._serve(running, DECODE_WEIGHT)
            self.running[running] -= 1
            if not self.running[running]:
                del self.running[running]

    @property
    def free(self) -> int:
        return self.capacity - sum(running.end for running in self.running)

    def _serve(self, served: Request, service: float) -> None:
        tenant = served.submission.tenant
        self.queue.charge(tenant, service)
        self.service[tenant] += service / self.weights.get(tenant, 1.0)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from("aaabbc"), st.integers(1, 20), st.integers(1, 20)),
        min_size=10,
        max_size=40,
    ),
    st.integers(40, 200),
    st.sampled_from(({}, WEIGHTS)),
)
def test_two_tenants_that_wait_get_service_within_the_bound_of_the_paper(
    arrivals: list[tuple[int, str, int, int]], capacity: int, weights: dict[str, float]
) -> None:
    """From any moment on, as long as both have requests waiting. Weights are 1 at least, so it holds for all.
    Nothing is left in the end: no request waits for ever, and the server never idles while one waits."""
    queue = FairQueue(prefill_weight=PREFILL_WEIGHT)
    queue.set_weights(weights)
    server = Server(queue, capacity, weights)
    bound = 2 * max(PREFILL_WEIGHT * 20, DECODE_WEIGHT * capacity)
    least: dict[tuple[str, str], float] = {}  # difference of the services since both wait
    for now in range(30 + 40 * 20):  # as long as if they ran one after the other
        for number, (when, tenant, tokens, outputs) in enumerate(arrivals):
            if when == now:
                queue.push(request(number, tenant, tokens=tokens, outputs=outputs))
        waiting = {item.submission.tenant for item in queue}
        for one in "abc":
            for other in "abc":
                difference = server.service[one] - server.service[other]
                if {one, other} <= waiting:
                    least[one, other] = min(least.get((one, other), difference), difference)
                    assert difference - least[one, other] <= bound
                else:
                    least.pop((one, other), None)
        server.step()
        if now > 30 and not waiting and not server.running:
            break
    assert not server.queue
    assert not server.running


def test_weights_divide_the_service_of_tenants_that_always_wait() -> None:
    queue = FairQueue(prefill_weight=PREFILL_WEIGHT)
    queue.set_weights(WEIGHTS)
    server = Server(queue, 800, WEIGHTS)
    number, outputs = 0, Counter[str]()
    for _ in range(4000):
        for tenant in "abc":
            while sum(item.submission.tenant == tenant for item in queue) < 10:
                number += 1
                queue.push(request(number, tenant, tokens=10, outputs=1 + number % 17))
        server.step()
        outputs.update(running.submission.tenant for running in server.running)
    total = outputs.total()
    for tenant, weight in WEIGHTS.items():
        assert outputs[tenant] / total == pytest.approx(weight / 7, rel=0.05)


def test_a_tenant_that_was_away_comes_back_without_credit() -> None:
    queue = FairQueue()
    queue.push(request(1, "busy"))
    queue.charge("busy", 1000.0)
    queue.push(request(2, "away"))  # lifted to 1000
    queue.charge("away", 1.0)
    assert [item.submission.tenant for item in queue.in_order()] == ["busy", "away"]


def test_a_tenant_that_joins_an_empty_queue_is_lifted_to_the_one_that_left_it_last() -> None:
    queue = FairQueue()
    first = request(1, "busy")
    queue.push(first)
    queue.remove(first)
    queue.charge("busy", 1000.0)  # it runs
    queue.push(request(2, "new"))  # lifted to 1000
    queue.push(request(3, "busy"))
    queue.charge("new", 1.0)
    assert [item.submission.tenant for item in queue.in_order()] == ["busy", "new"]


def test_new_tenants_without_end_pass_no_waiting_tenant_by() -> None:
    queue = FairQueue()
    waiting = request(0, "patient")
    queue.push(waiting)
    for number in range(1, 50):
        queue.push(request(number, f"new-{number}"))
    assert next(queue.in_order()) is waiting


def test_a_priority_is_a_head_start_within_its_tenant_and_none_over_another() -> None:
    queue = FairQueue()
    queue.push(request(1, "a"))
    queue.push(request(2, "a", earlier=-50))
    queue.push(request(3, "a", earlier=50))
    queue.push(request(4, "b", earlier=-1000))
    order = [item.name for item in queue.in_order()]
    assert [name for name in order if name != "r4"] == ["r3", "r1", "r2"]
    assert order.index("r4") == 1
    # Later ones without that priority come behind it: nothing waits for ever.
    queue.push(request(60, "a"))
    assert [item.name for item in queue.in_order() if item.submission.tenant == "a"][-1] == "r60"


def test_requests_that_came_back_are_first_whatever_their_tenant_and_in_their_order() -> None:
    queue = FairQueue()
    queue.charge("heavy", 1e6)
    queue.push(request(1, "light"))
    queue.push_front(request(9, "heavy"))
    queue.push_front(request(5, "heavy"))
    queue.push_front(request(7, "light"))
    assert [item.name for item in queue.in_order()] == ["r5", "r7", "r9", "r1"]


def test_counters_of_idle_tenants_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_queue, "MAX_IDLE_TENANTS", 8)
    queue = FairQueue()
    for number in range(1000):
        item = request(number, f"tenant-{number}")
        queue.push(item)
        queue.remove(item)
        queue.charge(f"tenant-{number}", 10.0)
    assert len(queue._idle) == 8
    assert not queue._queued


def test_the_first_of_many_is_found_without_looking_at_the_others() -> None:
    queue = FairQueue()
    for number in range(10_000):
        queue.push(request(number, f"tenant-{number % 1000}"))
    looked = [item.submission.tenant for item in islice(queue.in_order(), 16)]
    assert looked == [f"tenant-{number}" for number in range(16)]
    before = len(queue._by_counter._heap)
    assert before <= 2 * 1000 + 17
