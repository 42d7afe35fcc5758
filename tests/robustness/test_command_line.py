"""The commands as a shell runs them, by POSIX's conventions: statuses, signals, pipes, encodings."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from albireo import __version__
from albireo.cli import COMMANDS, bench
from albireo.cli.commands import load_command
from tests.robustness.fake_gateway import FakeGateway, Refusing, serving

COMMAND = (sys.executable, "-m", "albireo.cli")
ANSWER = "[bold]a[/bold] [/] [link=x] é 🦊"
HEAVY = {"asyncio", "google.protobuf", "grpc", "numpy", "opentelemetry", "pydantic_settings", "redis"}
"""Not pydantic, which typer looks for by itself."""
IMPORTS = """
import sys
from albireo.cli import app
app({!r}, standalone_mode=False)
print(sorted(sys.modules))
"""


@pytest.fixture(scope="module")
def gateway() -> Iterator[FakeGateway]:
    with serving(FakeGateway(ANSWER)) as found:
        yield found


def run(
    *arguments: str, target: str = "", stdin: str = "", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin.encode(),
        env={**os.environ, "ALBIREO_TARGET": target, **environment},
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    ["", "generate", "chat", "health", "top", "trace", "bench", "bench serve"],
)
def test_help_imports_nothing_that_it_does_not_need(command: str) -> None:
    """A budget of CPU time would depend on the machine; what a command imports does not."""
    code = IMPORTS.format([*command.split(), "--help"])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = ast.literal_eval(done.stdout.splitlines()[-1])
    assert not HEAVY & set(loaded)
    assert "albireo.cli" in loaded


def test_the_list_of_commands_says_what_their_own_help_says() -> None:
    for target, line in (*COMMANDS.values(), *bench.COMMANDS.values()):
        assert (load_command(target).help or "").splitlines()[0] == line


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout.decode()) == (0, f"albireo {__version__}\n")


@pytest.mark.parametrize(
    "environment", [{"LC_ALL": "C.UTF-8"}, {"LC_ALL": "C"}, {"LANG": "C", "LC_ALL": ""}, {"LC_ALL": "POSIX"}]
)
def test_an_answer_comes_out_as_it_is(gateway: FakeGateway, environment: dict[str, str]) -> None:
    done = run("generate", "hi", target=gateway.target, **environment)
    assert (done.returncode, done.stdout.decode()) == (0, ANSWER + "\n")


def test_a_terminal_that_lacks_a_character_gets_a_mark_and_the_rest(gateway: FakeGateway) -> None:
    done = run("generate", "hi", target=gateway.target, PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stdout.decode("latin-1")) == (0, ANSWER.replace("🦊", "?") + "\n")


def test_a_failed_stream_is_its_text_one_line_and_status_1(gateway: FakeGateway) -> None:
    done = run("generate", "fail", target=gateway.target)
    assert (done.returncode, done.stdout.decode()) == (1, ANSWER + "\n")
    assert done.stderr.decode() == "albireo: gone [/x] (try again)\n"


@pytest.mark.parametrize("arguments", [["generate", "hi"], ["--help"], ["generate", "--help"]])
def test_a_reader_that_closes_the_pipe_ends_the_command_silently(
    gateway: FakeGateway, arguments: list[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, *arguments, *(["--target", gateway.target] if arguments == ["generate", "hi"] else [])],
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode != 0


def interrupted(gateway: FakeGateway, arguments: list[str], stdin: bytes) -> subprocess.Popen[bytes]:
    """A command whose answer was interrupted while it streamed; its input is still open."""
    gateway.streaming.clear()
    gateway.cancelled.clear()
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--target", gateway.target],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(stdin)
    process.stdin.flush()
    assert gateway.streaming.wait(20)
    assert process.stdout is not None
    shown = b""
    while ANSWER.encode() not in shown:
        shown += os.read(process.stdout.fileno(), 4096)
    process.send_signal(signal.SIGINT)
    assert gateway.cancelled.wait(10)
    return process


def test_an_interrupt_in_chat_stops_the_answer_and_keeps_its_beginning(gateway: FakeGateway) -> None:
    process = interrupted(gateway, ["chat"], b"wait\n")
    out, err = process.communicate(b"\nfail\nand?\n", timeout=20)
    assert "(stopped)" in out.decode()
    assert err.decode() == "albireo: gone [/x] (try again)\n"
    assert process.returncode == 0  # the last question was answered
    assert gateway.asked[-2:] == [["wait", ANSWER, "fail"], ["wait", ANSWER, "and?"]]


def test_chat_ends_with_status_1_where_the_last_question_failed(gateway: FakeGateway) -> None:
    assert run("chat", target=gateway.target, stdin="hi\nfail\n").returncode == 1


def test_an_interrupt_ends_generate_as_posix_has_it(gateway: FakeGateway) -> None:
    process = interrupted(gateway, ["generate", "wait"], b"")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGINT
    assert b"Traceback" not in err


@pytest.mark.parametrize("output", [[], ["--json", "-"]])
def test_bench_serve_fails_where_requests_failed_and_says_how_many_and_why(output: list[str]) -> None:
    sizes = [
        "--num-requests",
        "3",
        "--warmup",
        "0",
        "--prompt-length",
        "fixed:4",
        "--output-length",
        "fixed:4",
    ]
    with serving(Refusing("")) as refusing:
        done = run("bench", "serve", *sizes, *output, target=refusing.target, COLUMNS="160")
    why = "RESOURCE_EXHAUSTED: full [/red] [bold]"
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1] == f"albireo: 3 of 3 requests failed; 3: {why}"
    if output:
        assert json.loads(done.stdout)["errors"] == {why: 3}
    else:
        assert why in done.stdout.decode()


def test_bench_serve_checks_first_that_its_file_can_be_written(gateway: FakeGateway) -> None:
    done = run("bench", "serve", "--json", "/nonexistent/x.json", target=gateway.target, COLUMNS="160")
    assert done.returncode == 2
    output = done.stderr.decode()
    assert "--json: /nonexistent/x.json: No such file or directory" in output
    assert "Traceback" not in output
