"""Log lines, as a process writes them."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from contextvars import copy_context

from albireo.telemetry.logs import JsonFormatter, SdkLogLimit, about, bind

SCRIPT = """
import logging
from albireo.telemetry.logs import about, bind, setup_logging
setup_logging("gateway", "INFO", {form!r})
logger = logging.getLogger("gateway.test")
logger.info("first of %d", 2)
logger.info("second", extra=about("r1", "abc", status="OK", tokens=3))
logger.debug("never")
"""


def lines(form: str) -> list[str]:
    command = [sys.executable, "-c", SCRIPT.format(form=form)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stderr.splitlines()


def test_json_lines_have_time_level_service_message_and_the_request() -> None:
    first, second = map(json.loads, lines("json"))
    assert set(first) == {"time", "level", "service", "logger", "message"}
    assert first["time"].endswith("+00:00")
    assert (first["level"], first["service"], first["message"]) == ("INFO", "gateway", "first of 2")
    assert (second["request_id"], second["trace_id"], second["status"]) == ("r1", "abc", "OK")
    assert second["tokens"] == 3


def test_text_lines_are_what_they_were() -> None:
    first, second = lines("text")
    assert first.endswith(" INFO gateway: first of 2")
    assert second.endswith(" INFO gateway: second")


def record(name: str = "x", **more: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": name, "msg": "m", "levelname": "INFO", **more})


def test_a_task_that_is_bound_to_a_request_logs_its_ids() -> None:
    def logged() -> dict[str, str]:
        bind("r2", "")
        found: dict[str, str] = json.loads(JsonFormatter("s").format(record()))
        return found

    inside = copy_context().run(logged)
    assert inside["request_id"] == "r2"
    assert "trace_id" not in inside
    assert "request_id" not in json.loads(JsonFormatter("s").format(record()))


def test_an_exception_is_one_line_too() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        line = JsonFormatter("s").format(record(exc_info=sys.exc_info()))
    assert "\n" not in line
    assert "ValueError: no" in json.loads(line)["exception"]


def test_the_sdk_repeats_itself_once_a_minute_and_nobody_else_is_held_back() -> None:
    sparing = SdkLogLimit()
    exporter = "opentelemetry.exporter.otlp"
    assert [sparing.filter(record(exporter)) for _ in range(3)] == [True, False, False]
    assert all(sparing.filter(record("gateway.service")) for _ in range(3))
    assert about("r") == {"fields": {"request_id": "r"}}
