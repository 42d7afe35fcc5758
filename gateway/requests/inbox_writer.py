"""Bounds the number of writes to the inbox at once, and completes those whose calls have ended.

The ``Inference`` service uses it, on the event loop; the submitter makes the calls to the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from redis.exceptions import RedisError

from albireo.store.redis_errors import describe
from gateway.calls.limits import QueuedLimit
from gateway.calls.refusal import Refusal, unavailable
from gateway.requests.submission import Submitter
from gateway.requests.validation import ValidRequest

logger = logging.getLogger(__name__)

MAX_SUBMITTING = MAX_ENDING = 24
"""Most submissions, and most other writes, at once: together fewer than there are connections to Redis."""
SUBMISSION_SECONDS = 5.0
"""Longest wait before a submission. A call that is cancelled during it has written nothing."""
ENDING_SECONDS = 30.0
"""Longest wait before another write. If it is not made, the request runs to its deadline."""
CLOSE_SECONDS = 5.0


class InboxWriter:
    """Submissions, each within the call that made it; cancellations and ends, each in its own task.

    The own task lets them complete if the call that asked for them ends or is cancelled.
    """

    def __init__(self, submitter: Submitter, hits: Counter[str]) -> None:
        """``hits`` counts, by bound, the calls that were refused or ended."""
        self._submitter = submitter
        slow = "Redis is slow"
        self._submissions = QueuedLimit(MAX_SUBMITTING, SUBMISSION_SECONDS, "submission_seconds", slow, hits)
        self._endings = QueuedLimit(MAX_ENDING, ENDING_SECONDS, "ending_seconds", slow, hits)
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(
        self, request: ValidRequest, name: str, digest: str, timeout_s: float, traceparent: str
    ) -> int:
        """Submits a request under ``name``; returns its epoch. Raises Refusal.

        A caller that is cancelled while it waits has written nothing. Once begun the submission runs to its
        end; if the caller was cancelled, or the answer was lost, what was accepted is withdrawn.
        """
        await self._submissions.acquire()
        submission = asyncio.create_task(
            self._submitter.submit(request, name, digest, timeout_s, traceparent)
        )
        submission.add_done_callback(lambda _: self._submissions.release())
        try:
            return await asyncio.shield(submission)
        except RedisError as error:  # it may have been accepted
            self._start(self._submitter.withdraw(request.record_id, name))
            raise unavailable(describe(error)) from error
        except asyncio.CancelledError:
            self._start(self._withdraw_after(submission, request.record_id, name))
            raise

    def cancel(self, name: str) -> None:
        """Starts the cancellation of a request or of one branch. If it fails, only the deadline ends it."""
        self._start(self._submitter.cancel(name))

    def note_end(self, record_id: str, name: str) -> None:
        """Starts the record that the request accepted under ``name`` has ended."""
        self._start(self._submitter.note_end(record_id, name))

    async def close(self) -> None:
        """Waits for the writes that were started, at most CLOSE_SECONDS."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)

    async def _withdraw_after(self, submission: asyncio.Task[int], record_id: str, name: str) -> None:
        """Withdraws what a submission has accepted. A refused one has accepted nothing."""
        with contextlib.suppress(RedisError):
            try:
                await submission
            except Refusal:
                return
        await self._submitter.withdraw(record_id, name)

    def _start(self, write: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._run(write))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, write: Coroutine[Any, Any, None]) -> None:
        with contextlib.closing(write):
            try:
                await self._endings.acquire()
                try:
                    await write
                finally:
                    self._endings.release()
            except RedisError as error:
                logger.warning("could not write the end of a request: %s", describe(error))
            except Refusal as refusal:
                logger.warning("could not write the end of a request: %s", refusal.message)
