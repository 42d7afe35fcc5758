"""One request's stream: its branches, merged into one sequence of events for the client."""

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
"""Most prompt tokens whose log-probabilities go into one message, so that it stays far below 1 MiB."""


class TokenStream:
    """All that comes for one request, between the router, which puts in, and one consumer of ``events``."""

    def __init__(
        self, request: ValidRequest, vocabulary: Vocabulary, on_stop: Callable[[str], None], name: str = ""
    ) -> None:
        """``on_stop`` is told the name of a branch that a stop string ends while the scheduler runs it.
        ``name``: the request's in the logs; its id where it has no other."""
        self.request = request
        self.name = name or request.request_id
        self.epoch: int | None = None  # set once the request is accepted
        self._wake = asyncio.Event()
        self._on_stop = on_stop
        self.failure: Failure | None = None  # of the whole; the scheduler may know nothing of it
        self._prompt: list[api.TokenLogprobs] = []  # not sent yet
        self._prompt_next = 1  # position of the first prompt token that has not been told
        names = branch_names(self.name, request.n)
        self.branches = {
            name: Branch(request, index, vocabulary, self._wake) for index, name in enumerate(names)
        }

    @property
    def over(self) -> bool:
        """Whether every branch has its final word."""
        return all(branch.over for branch in self.branches.values())

    @property
    def ending(self) -> Failure | None:
        """Why the call ends with a status that is not OK: the failure of the whole, or of the first branch
        that failed alone. None where every branch finished, and while they go on."""
        if not all(branch.done for branch in self.branches.values()):
            return self.failure
        outcomes = [branch.outcome for branch in self.branches.values()]
        return next((outcome for outcome in outcomes if isinstance(outcome, Failure)), None)

    def push_prompt(self, start: int, logprobs: Sequence[api.TokenLogprobs]) -> None:
        """Log-probabilities of prompt tokens from ``start`` on; a preempted prefill tells them again."""
        if start > self._prompt_next:
            gap = "log-probabilities of the prompt are missing"
            self.fail(Failure(grpc.StatusCode.INTERNAL, gap, retryable=False))
            return
        new = logprobs[self._prompt_next - start :]
        self._prompt += new
        self._prompt_next += len(new)
        self._wake.set()

    def end(self, reason: Finish) -> None:
        """All branches that go on end so."""
        for branch in self.branches.values():
            branch.end(reason)

    def fail(self, failure: Failure) -> None:
        """Nothing goes on."""
        if not self.over:
            self.failure = failure
            for branch in self.branches.values():
                branch.close()
            self._wake.set()

    async def events(self) -> AsyncIterator[api.GenerateEvent]:
        """Tokens as they come, each branch's last word, and at a failure of the whole its ``error``."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            failure = self.failure  # before anything is taken: nothing can come after it
            while self._prompt:  # to its end, whatever came meanwhile: no token goes before it
                yield self._prompt_part()
            for name, branch in self.branches.items():
                taken = branch.done
                while not taken:
                    events = branch.take()
                    if branch.stopped_early:
                        self._on_stop(name)
                    for event in events:
                        yield event
                    taken = not branch.pending
            if all(branch.done for branch in self.branches.values()):
                return
            if failure is not None:
                yield failure.event()
                return

    def _prompt_part(self) -> api.GenerateEvent:
        start = self._prompt_next - len(self._prompt)
        part, self._prompt = self._prompt[:PROMPT_PART], self._prompt[PROMPT_PART:]
        return api.GenerateEvent(prompt_logprobs=api.PromptTokens(start=start, logprobs=part))
