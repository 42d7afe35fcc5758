"""A priority queue from which any item can be removed.

The request table has one for the deadlines; the waiting queue consists of them.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from scheduler_svc.core.request import Order

T = TypeVar("T", bound=Hashable)


class KeyedQueue(Generic[T]):
    """Items by ascending key; keys are unique. push, remove and pop take O(log n), amortised.

    A removed item's entry stays in the heap until it is first, or until such entries are the majority:
    the heap never holds more than twice the live items and a few.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[Order, int, T]] = []
        self._live: dict[T, int] = {}  # item -> number of its entry
        self._pushes = 0

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, item: T) -> bool:
        return item in self._live

    def __iter__(self) -> Iterator[T]:
        """In no particular order."""
        return iter(self._live)

    def push(self, item: T, key: Order) -> None:
        """Adds an item that is not in the queue."""
        self._pushes += 1
        self._live[item] = self._pushes
        heapq.heappush(self._heap, (key, self._pushes, item))

    def remove(self, item: T) -> None:
        """Takes an item out, wherever it stands; nothing happens if it is not in the queue."""
        if self._live.pop(item, None) is not None and len(self._heap) > 2 * len(self._live) + 16:
            self._heap = [entry for entry in self._heap if self._live.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)

    def peek(self) -> tuple[Order, T] | None:
        """The first item and its key, or None."""
        heap = self._heap
        while heap:
            key, push, item = heap[0]
            if self._live.get(item) == push:
                return key, item
            heapq.heappop(heap)
        return None

    def in_order(self) -> Iterator[T]:
        """The items by ascending key; lazy: the first k take O(k log k). Items may be removed on the way, and
        are then left out if they have not come yet; none may be pushed."""
        # While each is removed before the next is asked for, the next is simply the first.
        while (first := self.peek()) is not None:
            yield first[1]
            if first[1] in self._live:
                break
        else:
            return
        heap, live = self._heap, self._live
        front = [(heap[child], child) for child in (1, 2) if child < len(heap)]
        # Entries whose parents in the heap have been visited.
        heapq.heapify(front)
        while front:
            (_, push, item), index = heapq.heappop(front)
            for child in (2 * index + 1, 2 * index + 2):
                if child < len(heap):
                    heapq.heappush(front, (heap[child], child))
            if live.get(item) == push:
                yield item
