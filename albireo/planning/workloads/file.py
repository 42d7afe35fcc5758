"""Reads a workload from a file of JSON lines, one request a line."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from albireo.planning.workload import MAX_REQUESTS, Sampling, Workload, WorkloadRequest
from albireo.planning.workloads.arrivals import CONCURRENCY, with_arrivals

MAX_LINE = 1 << 16
"""Characters; a request takes about a hundred."""


class _Line(BaseModel):
    """Fields of one line. Lengths are in tokens."""

    model_config = ConfigDict(extra="forbid", strict=True)

    arrival: float | None = Field(None, ge=0, allow_inf_nan=False)  # seconds from the begin of the run
    prompt_tokens: int = Field(ge=1)
    output_tokens: int = Field(ge=1)
    prefix: str = Field("", max_length=128)
    prefix_tokens: int = Field(0, ge=0)
    conversation: str = Field("", max_length=128)
    think: float | None = Field(None, ge=0, allow_inf_nan=False)  # seconds from the end of the turn before

    @model_validator(mode="after")
    def _a_prefix_has_a_length(self) -> _Line:
        if bool(self.prefix) != bool(self.prefix_tokens):
            raise ValueError("prefix and prefix_tokens: give both or none")
        if self.prefix_tokens >= self.prompt_tokens:
            raise ValueError("prefix_tokens: must be below prompt_tokens")
        return self


def read_workload(
    path: Path,
    *,
    concurrency: int | None = None,
    rate: float | None = None,
    burstiness: float | None = None,
    num_requests: int | None = None,
    default_concurrency: int = CONCURRENCY,
    sampling: Sampling = "greedy",
    seed: int = 0,
) -> Workload:
    """The requests of ``path``; with ``num_requests`` only so many, from its begin.

    Each line is an object with ``prompt_tokens``, ``output_tokens``, and optionally ``arrival`` (seconds,
    not falling; on all lines or on none) and ``prefix`` with ``prefix_tokens`` (lines with the same
    ``prefix`` share the first tokens of their prompts). Lines with the same ``conversation`` are its turns:
    the prompt of a later one begins with prompt and output of the one before, after whose end it is sent
    ``think`` seconds later, so it has neither ``arrival`` nor ``prefix``. ``concurrency``, ``rate`` and
    ``burstiness`` are for files without arrival times: see ``with_arrivals``; ``default_concurrency`` is for
    those where neither is given. Raises ValueError with the file's line and field, or the argument; OSError.
    """
    requests, timed = _read(path, num_requests)
    name = f"{len(requests)} request{'s' * (len(requests) != 1)} of {path.name}"
    workload = Workload(name, requests, sampling=sampling, seed=seed)
    if not timed:
        if not rate and concurrency is None:
            concurrency = default_concurrency
        return with_arrivals(workload, concurrency=concurrency, rate=rate, burstiness=burstiness)
    for argument, value in (("concurrency", concurrency), ("rate", rate), ("burstiness", burstiness)):
        if value is not None:
            raise ValueError(f"{argument}: the requests of {path} have arrival times of their own")
    return workload


def _read(path: Path, most: int | None) -> tuple[tuple[WorkloadRequest, ...], bool]:
    """At least one request, and whether they have arrival times. Raises ValueError, OSError.

    The file is read line by line, no further than needed: it may be large, or no file of requests at all.
    """
    found = _Requests()
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for number, text in enumerate(iter(lambda: file.readline(MAX_LINE + 1), ""), 1):
            if len(found.requests) == most:
                break
            if not text.strip():
                continue
            try:
                found.add(_parse(text))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    if not found.requests:
        raise ValueError(f"{path}: no requests")
    return tuple(found.requests), found.arrival is not None


class _Requests:
    """Those of the lines so far."""

    def __init__(self) -> None:
        self.requests: list[WorkloadRequest] = []
        self.arrival: float | None = None  # of the last first turn
        self._last_turns: dict[str, int] = {}  # index, by conversation

    def add(self, line: _Line) -> None:
        """Raises ValueError with the field."""
        if len(self.requests) == MAX_REQUESTS:
            raise ValueError(f"more than {MAX_REQUESTS} requests; --num-requests takes the first")
        after = self._last_turns.get(line.conversation)
        if after is None:
            self._check_first(line)
            self.arrival = line.arrival
        else:
            self._check_later(line, self.requests[after])
        if line.conversation:
            self._last_turns[line.conversation] = len(self.requests)
        self.requests.append(
            WorkloadRequest(
                line.arrival or 0.0,
                line.prompt_tokens,
                line.output_tokens,
                line.prefix,
                line.prefix_tokens,
                after,
                line.think or 0.0,
            )
        )

    def _check_first(self, line: _Line) -> None:
        before, arrival = self.arrival, line.arrival
        if line.think is not None:
            raise ValueError("think: is of a turn that follows another")
        if self.requests and (before is None) != (arrival is None):
            raise ValueError("arrival: must be on all lines or on none")
        if before is not None and arrival is not None and arrival < before:
            raise ValueError(f"arrival: {arrival:g} is earlier than the line before it, {before:g}")

    @staticmethod
    def _check_later(line: _Line, before: WorkloadRequest) -> None:
        for name, value in (("arrival", line.arrival), ("prefix", line.prefix or None)):
            if value is not None:
                raise ValueError(f"{name}: is of the first turn of a conversation")
        if line.prompt_tokens <= before.prompt + before.outputs:
            raise ValueError(
                f"prompt_tokens: {line.prompt_tokens}; the turn before had {before.prompt} and brought "
                f"{before.outputs}, with which the prompt of this one begins"
            )


def _parse(text: str) -> _Line:
    """Raises ValueError in one line, with the field."""
    if len(text) > MAX_LINE:
        raise ValueError(f"longer than {MAX_LINE} characters, so no request")
    try:
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError("must be a JSON object")
        return _Line.model_validate(fields)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("no JSON: nested too deep") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{field}: {message}" if field else message) from None
