"""Log lines, as text or as JSON, with the request that they are about."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

Format = Literal["text", "json"]

REPEAT_SECONDS = 60.0
"""The SDK's errors, as those about a collector that is gone, are logged once in so many seconds."""

_request: ContextVar[dict[str, str]] = ContextVar("request", default={})  # noqa: B039 (never mutated)


def bind(request_id: str, trace_id: str) -> None:
    """Adds the ids to everything that the current task logs from now on; empty ones are left out."""
    ids = {"request_id": request_id, "trace_id": trace_id}
    _request.set({name: value for name, value in ids.items() if value})


def about(request_id: str, trace_id: str = "", **fields: Any) -> dict[str, Any]:
    """Value for the ``extra`` of one log record: ids of its request, and fields for its JSON line."""
    return {"fields": {"request_id": request_id, **({"trace_id": trace_id} if trace_id else {}), **fields}}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, service, message; request_id, trace_id and others where known."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
            **_request.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class SdkLogLimit(logging.Filter):
    """Lets one record of each logger of the OpenTelemetry SDK through in REPEAT_SECONDS."""

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("opentelemetry"):
            return True
        now = time.monotonic()
        if now < self._next.get(record.name, 0.0):
            return False
        self._next[record.name] = now + REPEAT_SECONDS
        return True


def setup_logging(service: str, level: str = "INFO", form: Format = "text") -> None:
    """One line a record on standard error, with the service's name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(SdkLogLimit())
    if form == "json":
        handler.setFormatter(JsonFormatter(service))
    else:
        handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {service}: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
