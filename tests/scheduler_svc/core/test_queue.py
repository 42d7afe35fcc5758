"""The queue from which any item can be removed."""

from __future__ import annotations

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
