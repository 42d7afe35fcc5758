"""``albireo simulate`` from its options to its report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from albireo.cli import app
from albireo.models import TINY

QUICK = ("simulate", "--device", "paper-32b", "--num-requests", "4", "--output-length", "fixed:5")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "240", "NO_COLOR": "1"})


def test_the_same_options_give_the_same_bytes() -> None:
    options = (*QUICK, "--prompt-length", "uniform:10-90", "--rate", "20", "--seed", "3", "--json", "-")
    first, second = run(*options), run(*options)
    assert first.exit_code == 0
    assert first.stdout == second.stdout
    found = json.loads(first.stdout)
    assert found["simulated"] is True
    assert found["output_tokens"] == 20
    assert "as fast as real time" in first.stderr


def test_figures_go_to_a_table_a_file_and_a_chart(tmp_path: Path) -> None:
    result = run(*QUICK, "--json", str(tmp_path / "a.json"), "--chart", str(tmp_path / "a.png"))
    assert result.exit_code == 0
    assert "simulated: tiny on paper-32b, tp 1, overlapped, sampling auto" in result.stdout
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["requests"] == 4
    assert (tmp_path / "a.png").exists()


def test_without_overlap_the_host_is_visible() -> None:
    """The presets of devices have host times; those of explicit step times have none."""
    options = ("simulate", "--num-requests", "2", "--json", "-")
    overlapped, synchronous = (json.loads(run(*options, *more).stdout) for more in ((), ("--synchronous",)))
    assert overlapped["output_tokens_per_second"] > synchronous["output_tokens_per_second"]
    assert synchronous["step_shares"]["visible_t1"] > 0


def test_a_workload_of_a_file_is_simulated(tmp_path: Path) -> None:
    lines = [{"arrival": 0.5 * i, "prompt_tokens": 40, "output_tokens": 3 + i} for i in range(3)]
    path = tmp_path / "w.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    found = json.loads(run("simulate", "--workload", str(path), "--json", "-").stdout)
    assert found["requests"] == 3
    assert found["output_tokens"] == 3 + 4 + 5
    assert found["seconds"] > 1


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--tp", "3"), "--tp: num_attention_heads = 8 cannot be divided by a TP degree of 3"),
        (("--device", "none"), "--device: cost model 'none': no such file"),
        (("--max-model-len", "99999999"), "--max-model-len: 99999999 tokens; the model takes"),
        (("--kv-memory", "5"), "--kv-memory: 5 holds not even one block"),
        (("--kv-memory", "40%"), "--kv-memory: 40%; a simulated device takes a size"),
        (("--kv-memory", "much"), "--kv-memory: 'much' is neither a size"),
        (("--kv-host-memory", "lots"), "--kv-host-memory: 'lots' is neither a size"),
        (("--kv-host-memory", "40%"), "--kv-host-memory: 40%; a simulated device takes a size"),
        (("--kv-disk-size", "1GiB"), "h100 has no tier disk"),
        (("--prompt-length", "fixed:99999"), "do not fit into the context"),
        (("--kv-memory", "20KB", "--kv-host-memory", "none"), "do not fit into the context of"),
        (("--kv-memory", "90GiB"), "--kv-memory: 90GiB; weights and steps leave 7"),
        (
            ("--max-num-batched-tokens", "100"),
            "'--max-seqs' / '--max-num-batched-tokens': 256 slots",
        ),
        (("--max-seqs", "3000"), "3000 slots, and 2048 tokens of a step: each decoding row is a token"),
        (("--model", "nowhere"), "--model: nowhere"),
        (("--json", "nowhere/a.json"), "--json: nowhere/a.json"),
        (("--chart", "nowhere/a.png"), "--chart: nowhere/a.png"),
        (("--chart", "a.pdf"), "--chart: a.pdf: must end in .png"),
        (("--seed", "-1"), "'--seed'"),
        (("--rate", "1e-9"), "the last request arrives after"),
    ],
)
def test_bad_input_is_refused_in_one_line(options: tuple[str, ...], problem: str) -> None:
    result = run("simulate", *options)
    assert result.exit_code == 2
    assert problem in " ".join(result.stderr.replace("│", " ").split())


def test_contexts_that_blocks_do_not_hold_are_streamed_from_the_tier_of_the_device() -> None:
    workload = ("--prompt-length", "fixed:1000", "--output-length", "fixed:20", "--num-requests", "1")
    result = run("simulate", "--kv-memory", "200KB", *workload, "--json", "-")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["kv"]["blocks"] * 16 < 1000
    assert found["streamed_tokens"] == found["output_tokens"] == 20


def test_it_runs_without_torch() -> None:
    """Which takes longer to import than a short simulation, and is not there on a machine of no worker."""
    text = f"import sys; sys.modules['torch'] = None; from albireo.cli import app; app({list(QUICK)})"
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "simulated: tiny on paper-32b" in done.stdout


def test_without_greenlet_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("simulate")
    assert result.exit_code == 1
    assert "pip install 'albireo[simulation]'" in result.stderr


def test_a_name_is_shown_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A formula between dollars would be none, and ``.`` has no name."""
    path = tmp_path / r"$\none$.jsonl"
    path.write_text('{"prompt_tokens": 4, "output_tokens": 2}')
    monkeypatch.chdir(TINY)
    options = ("--workload", str(path), "--chart", str(tmp_path / "a.png"))
    result = run("simulate", "--model", ".", *options)
    assert result.exit_code == 0
    assert f"simulated: {TINY.name} on h100" in result.stdout


def test_drawn_lengths_are_cut_to_what_the_kv_blocks_hold() -> None:
    result = run(*QUICK, "--prompt-length", "uniform:10-8000", "--kv-memory", "1MiB", "--json", "-")
    assert "cut to the context of" in json.loads(result.stdout)["workload"]
