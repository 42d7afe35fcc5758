"""Workloads from files of JSON lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from albireo.planning.workload import WorkloadRequest
from albireo.planning.workloads.file import read_workload

LINE = '{"prompt_tokens": 5, "output_tokens": 7}'


def written(directory: Path, *lines: str) -> Path:
    path = directory / "load.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_lines_become_requests_with_their_arrivals(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '{"arrival": 0, "prompt_tokens": 5, "output_tokens": 7}',
        "",
        '{"arrival": 1.5, "prompt_tokens": 9, "output_tokens": 1, "prefix": "a", "prefix_tokens": 4}',
    )
    workload = read_workload(path, sampling="drawn", seed=3)
    assert workload.requests == (WorkloadRequest(0.0, 5, 7), WorkloadRequest(1.5, 9, 1, "a", 4))
    assert (workload.name, workload.concurrency) == ("2 requests of load.jsonl", 0)
    assert (workload.sampling, workload.seed) == ("drawn", 3)


def test_only_the_first_requests_are_taken_where_a_number_is_given(tmp_path: Path) -> None:
    assert len(read_workload(written(tmp_path, LINE, LINE, "no JSON"), num_requests=2).requests) == 2


def test_lines_without_arrivals_run_as_the_arguments_say(tmp_path: Path) -> None:
    path = written(tmp_path, LINE, LINE)
    assert read_workload(path).concurrency == 16
    assert read_workload(path, concurrency=3).concurrency == 3
    opened = read_workload(path, rate=2.0)
    assert opened.concurrency == 0
    assert 0 < opened.requests[0].at < opened.requests[1].at


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    """JSON allows the other line separators of Unicode within a string."""
    path = tmp_path / "load.jsonl"
    line = '{"prompt_tokens": 5, "output_tokens": 7, "prefix": "a\u2028b", "prefix_tokens": 2}\r\n'
    path.write_bytes(line.encode() * 2)
    assert read_workload(path).requests == (WorkloadRequest(0, 5, 7, "a\u2028b", 2),) * 2


def test_no_more_is_read_than_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zero, line 1: longer than"):
        read_workload(Path("/dev/zero"))


def test_requests_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("albireo.planning.workloads.file.MAX_REQUESTS", 2)
    path = written(tmp_path, LINE, LINE, LINE)
    with pytest.raises(ValueError, match="line 3: more than 2 requests"):
        read_workload(path)
    assert len(read_workload(path, num_requests=2).requests) == 2


@pytest.mark.parametrize("argument", ["concurrency", "rate", "burstiness"])
def test_arrivals_of_a_file_are_not_replaced(tmp_path: Path, argument: str) -> None:
    path = written(tmp_path, '{"arrival": 0, "prompt_tokens": 5, "output_tokens": 7}')
    given: dict[str, Any] = {argument: 2}
    with pytest.raises(ValueError, match=f"{argument}: .* have arrival times of their own"):
        read_workload(path, **given)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no JSON: Expecting property name"),
        ("[" * 50_000, "no JSON: nested too deep"),
        (" " * 9 + "7" * 70_000, "longer than 65536 characters"),
        ("17", "must be a JSON object"),
        ('{"output_tokens": 7}', "prompt_tokens: Field required"),
        ('{"prompt_tokens": 0, "output_tokens": 7}', "prompt_tokens: Input should be greater"),
        ('{"prompt_tokens": 5, "output_tokens": 1.5}', "output_tokens: Input should be a valid integer"),
        ('{"prompt_tokens": 5, "output_tokens": "7"}', "output_tokens: Input should be a valid integer"),
        ('{"prompt_tokens": 5, "output_tokens": true}', "output_tokens: Input should be a valid integer"),
        ('{"prompt_tokens": 5, "output_tokens": 7, "arrivals": 3}', "arrivals: Extra inputs"),
        ('{"prompt_tokens": 5, "output_tokens": 7, "prefix": "a"}', "prefix and prefix_tokens: give both"),
        (
            '{"prompt_tokens": 5, "output_tokens": 7, "prefix_tokens": 2}',
            "prefix and prefix_tokens: give both",
        ),
        (
            '{"prompt_tokens": 5, "output_tokens": 7, "prefix": "a", "prefix_tokens": 5}',
            "prefix_tokens: must be below prompt_tokens",
        ),
        ('{"prompt_tokens": 5, "output_tokens": 7, "arrival": NaN}', "arrival: Input should be"),
        ('{"prompt_tokens": 5, "output_tokens": 7, "arrival": -1}', "arrival: Input should be greater"),
        (
            '{"prompt_tokens": 5, "output_tokens": 7, "arrival": 3}',
            "arrival: must be on all lines or on none",
        ),
    ],
)
def test_an_error_names_file_line_and_field(tmp_path: Path, line: str, message: str) -> None:
    path = written(tmp_path, LINE, line)
    with pytest.raises(ValueError, match=r"load\.jsonl, line 2: ") as caught:
        read_workload(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arrivals_must_not_fall(tmp_path: Path) -> None:
    path = written(
        tmp_path, *(f'{{"arrival": {at}, "prompt_tokens": 5, "output_tokens": 7}}' for at in (1, 1, 0.5))
    )
    with pytest.raises(ValueError, match=r"line 3: arrival: 0\.5 is earlier than the line before it, 1"):
        read_workload(path)


def test_a_file_without_requests_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"load\.jsonl: no requests"):
        read_workload(written(tmp_path, "", "  "))


TURN = '{{"conversation": "{}", "prompt_tokens": {}, "output_tokens": 7{}}}'


def test_lines_of_one_conversation_are_its_turns(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        TURN.format("a", 5, ', "arrival": 1.0'),
        TURN.format("b", 5, ', "arrival": 2.0'),
        TURN.format("a", 13, ', "think": 4.5'),
        '{"arrival": 3.0, "prompt_tokens": 5, "output_tokens": 7}',
        TURN.format("a", 30, ""),
    )
    assert read_workload(path).requests == (
        WorkloadRequest(1.0, 5, 7),
        WorkloadRequest(2.0, 5, 7),
        WorkloadRequest(0.0, 13, 7, after=0, think=4.5),
        WorkloadRequest(3.0, 5, 7),
        WorkloadRequest(0.0, 30, 7, after=2),
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (TURN.format("a", 12, ""), "prompt_tokens: 12; the turn before had 5 and brought 7"),
        (TURN.format("a", 13, ', "arrival": 9.0'), "arrival: is of the first turn"),
        (TURN.format("a", 13, ', "prefix": "p", "prefix_tokens": 3'), "prefix: is of the first turn"),
        (TURN.format("b", 13, ', "think": 1.0'), "think: is of a turn that follows another"),
        (LINE[:-1] + ', "think": 1.0}', "think: is of a turn that follows another"),
    ],
)
def test_an_error_in_a_turn_names_its_field(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"line 2: {message}"):
        read_workload(written(tmp_path, TURN.format("a", 5, ""), line))
