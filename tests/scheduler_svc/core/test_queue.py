"""The queue from which any item can be removed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scheduler_svc.core.queue import KeyedQueue


def test_a_queue_forgets_what_was_removed() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    for number in range(1000):
        queue.push(f"item {number}", (float(number), number))
    for number in range(999):
        queue.remove(f"item {number}")
    queue.remove("unknown")
    assert len(queue) == 1
    assert len(queue._heap) <= 18
    assert queue.peek() == ((999.0, 999), "item 999")
    queue.remove("item 999")
    queue.push("item 999", (0.0, 1))
    assert queue.peek() == ((0.0, 1), "item 999")


@given(keys=st.lists(st.integers(0, 9), max_size=60), removed=st.sets(st.integers(0, 59)))
def test_it_is_read_in_order_while_items_are_removed(keys: list[int], removed: set[int]) -> None:
    queue: KeyedQueue[int] = KeyedQueue()
    for item, key in enumerate(keys):
        queue.push(item, (float(key), item))
    for item in removed:
        queue.remove(item)
    left = sorted(set(range(len(keys))) - removed, key=lambda item: (keys[item], item))
    assert list(queue.in_order()) == left
    found = []
    for item in queue.in_order():
        found.append(item)
        queue.remove(item)
    assert found == left
    assert list(queue.in_order()) == []
