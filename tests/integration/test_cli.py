"""The commands against the live stack, as a user starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from albireo.contract.plan import branch_seed
from albireo.models import TINY
from tests.stack import Running, ask, request

STORY = "Tell me a story about a fox."


def albireo(*arguments: str, stdin: str = "", target: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ALBIREO_TARGET": target} if target else None
    return subprocess.run(
        [sys.executable, "-m", "albireo.cli", *arguments],
        input=stdin,
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_generate_streams_text_to_stdout_and_figures_to_stderr(tp2: Running) -> None:
    done = albireo("generate", STORY, "--temperature", "0", "--max-tokens", "20", target=tp2.stack.target)
    expected = ask(tp2, request(STORY, max_tokens=20))
    assert done.returncode == 0
    assert done.stdout == expected.text + "\n"
    assert done.stderr.startswith("20 tokens, TTFT ")
    assert "tokens/s, finish: length" in done.stderr


def test_generate_prints_one_json_object(tp2: Running) -> None:
    stop = ask(tp2, request(STORY, max_tokens=30)).text[10:14]
    options = ["--max-tokens", "30", "--temperature", "0", "--stop", stop, "--request-id", "from-cli"]
    done = albireo("generate", "--json", "--target", tp2.stack.target, *options, STORY)
    assert done.returncode == 0
    report = json.loads(done.stdout)
    expected = ask(tp2, request(STORY, max_tokens=30, stop=[stop]))
    [answer] = report["answers"]
    assert answer["text"] == expected.text
    assert answer["tokens"] == expected.ids
    assert answer["finish"] == "stop"
    assert report["ttft_seconds"] > 0


def test_generate_shows_several_answers_each_as_a_whole(tp2: Running) -> None:
    options = ["--n", "3", "--seed", "5", "--max-tokens", "12", "--ignore-eos"]
    done = albireo("generate", STORY, *options, target=tp2.stack.target)
    assert done.returncode == 0, done.stderr
    for index in range(3):
        message = request(STORY, max_tokens=12, temperature=1, seed=branch_seed(5, index), ignore_eos=True)
        assert f"[{index}] {ask(tp2, message).text}\n" in done.stdout
    assert done.stderr.startswith("36 tokens, TTFT ")


def test_generate_takes_every_control_and_reports_log_probabilities(tp2: Running) -> None:
    bias, allowed, bad = ["--logit-bias", "10=-1.5"], ["--allowed-token-ids", "9"], ["--bad-token-ids", "8"]
    options = [*bias, "--logit-bias", "9=3", *allowed, "--allowed-token-ids", "10", *bad]
    options += ["--typical-p", "0.9", "--repetition-penalty", "1.1", "--presence-penalty", "0.5"]
    options += ["--frequency-penalty", "-0.5", "--stop-token-ids", "8", "--logprobs", "2"]
    options += ["--prompt-logprobs", "1", "--max-tokens", "6", "--json"]
    done = albireo("generate", "--raw", "abcdef", *options, target=tp2.stack.target)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    [answer] = report["answers"]
    assert set(answer["tokens"]) <= {9, 10}
    assert [len(entry["top"]) for entry in answer["logprobs"]] == [2] * 6
    assert all(entry["logprob"] < 0 and len(entry["top"]) == 1 for entry in report["prompt_logprobs"])


def test_generate_tells_a_refusal_in_one_line(tp2: Running) -> None:
    done = albireo("generate", STORY, "--top-p", "2", target=tp2.stack.target)
    assert done.returncode == 1
    assert done.stderr.startswith("albireo: INVALID_ARGUMENT: sampling.top_p: ")
    assert len(done.stderr.splitlines()) == 1


def test_chat_keeps_the_conversation_and_ends_with_the_input(tp2: Running) -> None:
    questions = "What is 37 + 45?\nWhat is 2 + 3?\n"
    done = albireo("chat", "--temperature", "0", stdin=questions, target=tp2.stack.target)
    assert done.returncode == 0
    assert "82" in done.stdout
    first, second, end = done.stdout.split("> ")[1:]
    message = request("What is 37 + 45?", max_tokens=200)
    assert first.strip() == ask(tp2, message).text.strip()
    message.chat.messages.add(role="assistant", content=first.removesuffix("\n"))
    message.chat.messages.add(role="user", content="What is 2 + 3?")
    assert second.strip() == ask(tp2, message).text.strip()
    assert end.strip() == ""


@pytest.mark.parametrize(
    ("load", "described"), [(["--concurrency", "4"], "4 at a time"), (["--rate", "40"], "40 requests/s")]
)
def test_bench_serve_reports_as_json(tp2: Running, load: list[str], described: str) -> None:
    lengths = ["--prompt-length", "uniform:4-20", "--output-length", "fixed:8"]
    options = [*load, *lengths, "--num-requests", "12", "--warmup", "1", "--json", "-"]
    done = albireo("bench", "serve", *options, target=tp2.stack.target)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert described in report["setup"]
    assert "tiny (float32, cpu, tp 2)" in report["setup"]
    assert (report["requests"], report["errors"], report["output_tokens"]) == (12, {}, 96)
    for name in ("ttft", "tpot", "inter_token", "end_to_end"):
        spread: dict[str, Any] = report[name]
        assert 0 < spread["p50"] <= spread["p90"] <= spread["p95"] <= spread["p99"]
    assert report["output_tokens_per_second"] == pytest.approx(96 / report["seconds"])
    assert "12/12" in done.stderr  # the progress bar, at its end


def test_bench_serve_prints_a_table_and_writes_json_to_a_file(tp2: Running, tmp_path: Path) -> None:
    to = tmp_path / "report.json"
    sizes = [
        "--num-requests",
        "3",
        "--warmup",
        "0",
        "--prompt-length",
        "fixed:5",
        "--output-length",
        "fixed:4",
    ]
    done = albireo("bench", "serve", *sizes, "--json", str(to), target=tp2.stack.target)
    assert done.returncode == 0, done.stderr
    for part in ("TTFT", "TPOT", "inter-token", "p99", "output tokens/s"):
        assert part in done.stdout
    assert json.loads(to.read_text())["output_tokens"] == 12


def test_demo_answers_and_stops_everything(tmp_path: Path) -> None:
    done = albireo("demo", "--tp", "1", "--port", "0", "--model", str(TINY), "--data-dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) > 20
    assert "tokens, TTFT " in done.stderr
    assert not list((tmp_path / "redis").glob("redis.sock"))  # Redis removes it when it is stopped in order


def test_up_does_not_take_another_stack_for_its_own(tp2: Running) -> None:
    done = albireo("up", "--model", str(TINY), "--port", tp2.stack.target.rpartition(":")[2])
    assert done.returncode == 1
    assert f"cannot listen on {tp2.stack.target}" in done.stderr
