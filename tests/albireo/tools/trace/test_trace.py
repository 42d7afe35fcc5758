"""The Chrome trace of steps, and its picture."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from albireo.tools.trace.picture import draw
from albireo.tools.trace.trace import LANES, PROCESSES, chrome_trace
from tests.step_records import overlapped


def test_every_stage_of_a_step_is_in_its_lane() -> None:
    trace = chrome_trace(overlapped(range(1, 5)))
    spans = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert min(e["ts"] for e in spans) == 0
    of_two = {e["cat"]: e for e in spans if e["args"]["step"] == 2}
    assert set(of_two) == {"plan", "publish", "input", "forward", "sampling", "output", "hand out"}
    assert of_two["forward"]["dur"] == 8000
    assert of_two["sampling"]["ts"] == of_two["forward"]["ts"] + 8000
    lanes = {(e["pid"], e["tid"]) for e in spans}
    assert lanes == {(process, thread) for process, _, thread, _ in LANES}


def test_each_group_has_lanes_of_its_own() -> None:
    records = overlapped(range(1, 5))
    for other in overlapped(range(2, 4)):
        other.group = "another"
        records.append(other)
    for record in records[:4]:
        record.group = "one"
    events = chrome_trace(records)["traceEvents"]
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    spans = [e for e in events if e["ph"] == "X"]
    assert len(processes) == 2 * PROCESSES
    assert all(processes[e["pid"]].endswith(f", {e['args']['group']}") for e in spans)
    forwards = Counter(processes[e["pid"]] for e in spans if e["cat"] == "forward")
    assert forwards == {"worker, rank 0, one": 4, "worker, rank 0, another": 2}


def test_simulated_steps_say_so() -> None:
    records = overlapped(range(1, 4))
    for record in records:
        record.simulated = True
    names = {e["cat"] for e in chrome_trace(records)["traceEvents"] if e["ph"] == "X"}
    assert {"simulated forward", "simulated sampling"} <= names


def test_nothing_unknown_is_drawn() -> None:
    """When the last step was appended is not known; no span may reach back to the year 1970."""
    trace = chrome_trace(overlapped([7]))
    assert {e["cat"] for e in trace["traceEvents"] if e["ph"] == "X"} == {
        "plan",
        "input",
        "forward",
        "sampling",
        "hand out",
    }


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    draw(chrome_trace(overlapped(range(1, 9))), tmp_path / "trace.png", first=3, steps=3)
    assert (tmp_path / "trace.png").read_bytes().startswith(b"\x89PNG")
