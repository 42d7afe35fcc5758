"""The options that ask for a workload, as keyword arguments of a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from albireo.cli.workload_options import OPTIONS, read_options
from albireo.planning.workload import Workload
from albireo.planning.workloads.draw import make_workload
from albireo.planning.workloads.presets import PRESETS


def read(max_model_len: int | None = None, **given: Any) -> Workload:
    return read_options({**{p.name: p.default for p in OPTIONS}, **given}, max_model_len)


def written(directory: Path, arrival: str = "") -> str:
    path = directory / "load.jsonl"
    path.write_text(f'{{"prompt_tokens": 50, "output_tokens": 30{arrival}}}\n' * 3)
    return str(path)


def test_without_options_it_is_the_default_workload() -> None:
    assert read() == make_workload()


def test_options_reach_the_workload() -> None:
    given = {"rate": 2.0, "burstiness": 0.5, "seed": 4, "num_requests": 9, "output_length": "uniform:2-8"}
    assert read(controls="penalized", **given) == make_workload(sampling="penalized", **given)  # type: ignore[arg-type]


def test_a_preset_gives_the_lengths_and_an_option_replaces_one() -> None:
    chat = PRESETS["chat"]
    assert read(workload="chat") == make_workload(chat.prompt_length, chat.output_length)
    assert read(workload="chat", output_length="fixed:3") == make_workload(chat.prompt_length, "fixed:3")


def test_drawn_lengths_are_cut_to_the_context() -> None:
    assert read(300, workload="chat").longest == 300


def test_a_file_is_read_and_arrives_as_asked(tmp_path: Path) -> None:
    workload = read(workload=written(tmp_path), concurrency=2, controls="drawn")
    assert (len(workload.requests), workload.concurrency, workload.sampling) == (3, 2, "drawn")
    assert read(workload=written(tmp_path, ', "arrival": 2.0')).requests[0].at == 2.0


def test_a_commands_own_concurrency_holds_where_the_options_do_not_say(tmp_path: Path) -> None:
    def at(**given: Any) -> int:
        return read_options({**{p.name: p.default for p in OPTIONS}, **given}, concurrency=256).concurrency

    assert at() == at(workload=written(tmp_path)) == at(workload="chat") == 256
    assert at(concurrency=3) == at(workload=written(tmp_path), concurrency=3) == 3
    assert at(rate=2.0) == at(workload=written(tmp_path), rate=2.0) == 0
    assert at(workload=written(tmp_path, ', "arrival": 2.0')) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt_length": "fixed:4"}, "says it itself"),
        ({"max_model_len": 64}, "has 80 tokens, the context only 64"),
    ],
)
def test_what_a_file_does_not_allow_is_an_error(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(typer.BadParameter, match=message):
        read(workload=written(tmp_path), **given)


def test_an_error_names_the_option(tmp_path: Path) -> None:
    for option, given in (
        ("--rate", {"workload": written(tmp_path, ', "arrival": 2.0'), "rate": 3.0}),
        ("--prompt-length", {"prompt_length": "zipf:3"}),
        ("--workload", {"workload": "no-such"}),
        ("--workload", {"workload": str(tmp_path)}),
    ):
        with pytest.raises(typer.BadParameter) as caught:
            read(**given)
        assert caught.value.param_hint == option
