"""Reads a workload from a file of JSON lines, one request a line."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from albireo.planning.workload import Sampling, Workload, WorkloadRequest
from albireo.planning.workloads.arrivals import CONCURRENCY, with_arrivals


class _Line(BaseModel):
    """Fields of one line. Lengths are in tokens."""

    model_config = ConfigDict(extra="forbid", strict=True)

    arrival: float | None = Field(None, ge=0, allow_inf_nan=False)  # seconds from the begin of the run
    prompt_tokens: int = Field(ge=1)
    output_tokens: int = Field(ge=1)
    prefix: str = Field("", max_length=128)
    prefix_tokens: int = Field(0, ge=0)

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
    burstiness: float = 1.0,
    num_requests: int | None = None,
    sampling: Sampling = "greedy",
    seed: int = 0,
) -> Workload:
    """The requests of ``path``; with ``num_requests`` only so many, from its begin.

    Each line is an object with ``prompt_tokens``, ``output_tokens``, and optionally ``arrival`` (seconds,
    not falling; on all lines or on none) and ``prefix`` with ``prefix_tokens`` (lines with the same
    ``prefix`` share the first tokens of their prompts). ``concurrency``, ``rate`` and ``burstiness`` are for
    files without arrival times: see ``with_arrivals``. Raises ValueError with the file's line and field, or
    the argument; OSError.
    """
    lines = _read(path, num_requests)
    requests = tuple(
        WorkloadRequest(
            line.arrival or 0.0, line.prompt_tokens, line.output_tokens, line.prefix, line.prefix_tokens
        )
        for line in lines
    )
    name = f"{len(requests)} requests of {path.name}"
    workload = Workload(name, requests, sampling=sampling, seed=seed)
    if lines[0].arrival is None:
        return with_arrivals(
            workload, concurrency=concurrency or CONCURRENCY, rate=rate or 0.0, burstiness=burstiness
        )
    for argument, value in (("concurrency", concurrency), ("rate", rate)):
        if value is not None:
            raise ValueError(f"{argument}: the requests of {path} have arrival times of their own")
    return workload


def _read(path: Path, most: int | None) -> list[_Line]:
    """At least one line. Raises ValueError, OSError."""
    lines: list[_Line] = []
    for number, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if len(lines) == most:
            break
        if not text.strip():
            continue
        try:
            line = _parse(text)
            if lines:
                _check_order(lines[-1].arrival, line.arrival)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        lines.append(line)
    if not lines:
        raise ValueError(f"{path}: no requests")
    return lines


def _check_order(before: float | None, arrival: float | None) -> None:
    """Raises ValueError."""
    if (before is None) != (arrival is None):
        raise ValueError("arrival: must be on all lines or on none")
    if before is not None and arrival is not None and arrival < before:
        raise ValueError(f"arrival: {arrival:g} is earlier than the line before it, {before:g}")


def _parse(text: str) -> _Line:
    """Raises ValueError in one line, with the field."""
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
