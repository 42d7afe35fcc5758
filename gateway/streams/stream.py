"""The stream of one request: its branches, merged into one sequence of events for the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import grpc

from albireo.contract.plan import Finish, branch_names
from albireo.v1 import inference_pb2 as api
from gateway.requests.validation import ValidRequest
from gateway.streams.branch import Branch
from gateway.streams.failures import Failure
from gateway.text.detokenizer import Vocabulary

PROMPT_PART = 512
"""Most prompt tokens with log-probabilities in one message, which stays far below 1 MiB."""


class TokenStream:
    """Joins the router, which puts rows in, and one consumer of ``events``; both on the event loop."""

    def __init__(
        self, request: ValidRequest, vocabulary: Vocabulary, on_stop: Callable[[str], None], name: str = ""
    ) -> None:
        """``on_stop`` is called with the name of a branch that a stop string ends while the scheduler runs
        it. ``name``: of the request in the logs; empty: its id."""
        self.request = request
        self.name = name or request.request_id
        self.epoch: int | None = None  # set once the request is accepted
        self._wake = asyncio.Event()
        self._on_stop = on_stop
        self.failure: Failure | None = None  # of the whole stream; the scheduler may still run the request
        self._prompt: list[api.TokenLogprobs] = []  # not sent yet, in order
        self._prompt_next = 1  # position of the first prompt token that has not arrived
        names = branch_names(self.name, request.n)
        self.branches = {
            name: Branch(request, index, vocabulary, self._wake) for index, name in enumerate(names)
        }

    @property
    def ended(self) -> bool:
        """Whether it is known how every branch ends."""
        return all(branch.ended for branch in self.branches.values())

    @property
    def final_failure(self) -> Failure | None:
        """Why the call's status is not OK: the failure of the whole stream, or, after the last event of every
        branch, that of the first branch that failed. Otherwise None."""
        if not all(branch.delivered for branch in self.branches.values()):
            return self.failure
        outcomes = [branch.outcome for branch in self.branches.values()]
        return next((outcome for outcome in outcomes if isinstance(outcome, Failure)), None)

    def push_prompt(self, start: int, logprobs: Sequence[api.TokenLogprobs]) -> None:
        """Log-probabilities of prompt tokens from position ``start``; a preempted prefill repeats them."""
        if start > self._prompt_next:
            gap = "log-probabilities of the prompt are missing"
            self.fail(Failure(grpc.StatusCode.INTERNAL, gap, retryable=False))
            return
        new = logprobs[self._prompt_next - start :]
        self._prompt += new
        self._prompt_next += len(new)
        self._wake.set()

    def finish(self, reason: Finish) -> None:
        """Ends all branches that have not ended."""
        for branch in self.branches.values():
            branch.finish(reason)

    def fail(self, failure: Failure) -> None:
        """Ends the stream with an error. No effect if every branch has ended."""
        if not self.ended:
            self.failure = failure
            for branch in self.branches.values():
                branch.close()
            self._wake.set()

    async def events(self) -> AsyncIterator[api.GenerateEvent]:
        """Tokens as they arrive, the last event of each branch, and ``error`` if the whole stream fails."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            failure = self.failure  # read first: the events that precede it are taken out below
            while self._prompt:  # all of it, also what arrives meanwhile: it precedes the tokens
                yield self._prompt_part()
            for name, branch in self.branches.items():
                more = not branch.delivered
                while more:
                    events = branch.pop_events()
                    if branch.stopped_early:
                        self._on_stop(name)
                    for event in events:
                        yield event
                    more = branch.has_pending
            if all(branch.delivered for branch in self.branches.values()):
                return
            if failure is not None:
                yield failure.event()
                return

    def _prompt_part(self) -> api.GenerateEvent:
        start = self._prompt_next - len(self._prompt)
        part, self._prompt = self._prompt[:PROMPT_PART], self._prompt[PROMPT_PART:]
        return api.GenerateEvent(prompt_logprobs=api.PromptTokens(start=start, logprobs=part))
