"""The Chrome trace of steps, and its picture."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from albireo.tools.trace.picture import draw, shown
from albireo.tools.trace.trace import LANES, PROCESSES, chrome_trace
from albireo.v1 import control_pb2 as control
from tests.step_records import nanoseconds, overlapped


def transfer(
    tier: str, begin: float, end: float, *, write: bool = False, size: int = 2**20
) -> control.KvTransfer:
    """``begin`` and ``end`` in milliseconds."""
    return control.KvTransfer(
        tier=tier, write=write, begin=nanoseconds(begin), end=nanoseconds(end), bytes=size
    )


def with_copies() -> list[control.StepRecord]:
    """Steps 1 to 4, the forward of step n from 10 n to 10 n + 8 ms. Layers of step 2 wait for 3 ms."""
    records = overlapped(range(1, 5))
    records[1].timing.kv_wait = 3_000_000
    records[1].timing.transfers.append(transfer("disk", 15, 23))
    records[2].timing.transfers.extend([transfer("host", 24, 25, write=True), transfer("disk", 24, 26)])
    return records


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


def test_copies_have_a_lane_for_each_tier_and_direction_in_the_process_of_rank_0() -> None:
    events = chrome_trace(with_copies())["traceEvents"]
    lanes = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    copies = [e for e in events if e.get("cat") in ("fetch", "spill")]
    assert [lanes[e["pid"], e["tid"]] for e in copies] == [
        "fetches from disk",
        "fetches from disk",
        "spills to host",
    ]
    assert {e["pid"] for e in copies} == {2}
    assert not {e["tid"] for e in copies} & {thread for process, _, thread, _ in LANES if process == 2}
    first = copies[0]
    assert (first["dur"], first["name"]) == (8000, "fetch 1.0 MiB")
    assert (first["args"]["tier"], first["args"]["bytes"], first["args"]["step"]) == ("disk", 2**20, 2)


def test_a_group_without_tiers_has_no_lanes_for_copies_where_another_has_some() -> None:
    records = with_copies()
    for record in overlapped(range(1, 5)):
        record.group = "z"
        records.append(record)
    names = Counter(e["args"]["name"] for e in chrome_trace(records)["traceEvents"] if e["ph"] == "M")
    assert (names["T2 input"], names["fetches from disk"], names["spills to host"]) == (2, 1, 1)


def test_the_time_for_which_layers_waited_is_marked_within_the_forward() -> None:
    records = with_copies()
    events = chrome_trace(records)["traceEvents"]
    [forward] = [e for e in events if e["name"] == "forward 2"]
    [wait] = [e for e in events if e["name"] == "wait for KV 2"]
    assert (wait["ts"], wait["dur"]) == (forward["ts"], 3000)
    assert (wait["pid"], wait["tid"]) == (forward["pid"], forward["tid"])
    records[1].timing.kv_wait = 3_000_000_000  # more than the forward took: by another clock
    [wait] = [e for e in chrome_trace(records)["traceEvents"] if e["name"] == "wait for KV 2"]
    assert wait["dur"] == forward["dur"]


def test_simulated_copies_and_waits_say_so() -> None:
    records = with_copies()
    for record in records:
        record.simulated = True
    names = {e["cat"] for e in chrome_trace(records)["traceEvents"] if e["ph"] == "X"}
    assert {"simulated fetch", "simulated spill", "simulated wait for KV"} <= names


def test_a_picture_shows_of_copies_what_ran_during_its_steps(tmp_path: Path) -> None:
    """Step 3 is from the begin of its plan, at 24 ms, on: the first fetch was over by then."""
    spans = [e for e in chrome_trace(with_copies())["traceEvents"] if e["ph"] == "X"]
    for first, copies in (
        (2, [("fetch", 8000), ("fetch", 2000), ("spill", 1000)]),
        (3, [("fetch", 2000), ("spill", 1000)]),
        (4, []),
    ):
        found = shown(spans, first, 1)
        assert [(e["cat"], e["dur"]) for e in found if e["cat"] in ("fetch", "spill")] == copies
    draw(chrome_trace(with_copies()), tmp_path / "trace.png", first=2, steps=2)
    assert (tmp_path / "trace.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_cuts_copies_at_its_edges() -> None:
    records = with_copies()
    records[3].timing.transfers.append(transfer("disk", 30, 33))
    spans = [e for e in chrome_trace(records)["traceEvents"] if e["ph"] == "X"]
    [cut] = [e for e in shown(spans, 2, 1) if e["cat"] == "fetch" and e["args"]["step"] == 4]
    assert cut["dur"] == 1100  # until the rows of step 2 are handed out


def test_copies_that_overlap_have_lanes_of_their_own() -> None:
    """A lane shows one span at a time: viewers leave out what overlaps."""
    records = overlapped(range(1, 3))
    times = [(10, 14), (12, 16), (13, 15), (14, 18), (30, 31)]
    records[1].timing.transfers.extend(transfer("disk", *time, write=True) for time in reversed(times))
    events = chrome_trace(records)["traceEvents"]
    lanes = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name" and e["pid"] == 2}
    found = [(lanes[e["tid"]], e["dur"] / 1e3) for e in events if e.get("cat") == "spill"]
    assert found == [
        ("spills to disk", 4),
        ("spills to disk, 2", 4),
        ("spills to disk, 3", 2),
        ("spills to disk", 4),
        ("spills to disk", 1),
    ]


def test_what_layers_read_has_lanes_of_its_own_above_the_copies() -> None:
    records = with_copies()
    for begin in (20, 22, 24):  # three layers of step 2
        read = transfer("disk", begin, begin + 2, size=3 * 2**20)
        read.streamed = True
        records[1].timing.transfers.append(read)
    events = chrome_trace(records)["traceEvents"]
    reads = [e for e in events if e.get("cat") == "stream"]
    assert [(e["name"], e["dur"], e["args"]["bytes"]) for e in reads] == 3 * [
        ("stream 3.0 MiB", 2000, 3 * 2**20)
    ]
    lanes = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name" and e["pid"] == 2}
    names = [name for _, name in sorted(lanes.items())]
    assert names[3:] == ["streamed from disk", "fetches from disk", "spills to host"]
    assert {lanes[e["tid"]] for e in reads} == {"streamed from disk"}
