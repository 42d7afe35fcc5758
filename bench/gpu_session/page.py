"""The page of a session: what its parts found, as Markdown. What a part did not find has no row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from albireo.telemetry.step_times import TASKS
from bench.gpu_session.model import FULL
from bench.gpu_session.parts import VLLM_ROWS

Figures = Mapping[str, Any]


def page(session: Mapping[str, Any]) -> str:
    """Of the session as its JSON file has it."""
    found = {part["name"]: part for part in session["parts"]}
    text = [
        "# GPU session",
        f"{session['date']}, `{session['command']}`, commit {session['commit']}. "
        f"Device: {session['device']}; shape of the model: {session['shape']}, with random weights.",
        *(["**Quick: this shows that the session runs, and its figures say nothing.**"] * session["quick"]),
        "## Parts",
        _table(
            ("part", "outcome", "seconds", "limit", "command"),
            [
                (
                    part["name"],
                    part["status"],
                    f"{part['seconds']:.1f}",
                    f"{part['limit']:.0f}",
                    f"`{part['command']}`",
                )
                for part in session["parts"]
            ],
        ),
        "`RESULT` is the JSON file that a part writes, `SCRATCH` the session's temporary folder.",
    ]
    for name, (title, write) in SECTIONS.items():
        if (part := found.get(name)) is None:
            continue
        text.append(f"## {title}")
        if part["status"] == "skipped":
            text.append(f"Not measured: {part['why']}.")
            continue
        if part["status"] != "ok":
            text.append(f"This part {_did(part)} The end of its output:\n\n```\n{part['why']}\n```")
        if part["figures"]:
            text += write(part["figures"])
    return "\n\n".join(text) + "\n"


def _did(part: Mapping[str, Any]) -> str:
    if part["status"] == "timed out":
        return f"did not end within {part['limit']:.0f} s."
    return "failed."


def _environment(figures: Figures) -> Iterable[str]:
    yield _table(("what", "which"), list(figures.items()))


def _tests(figures: Figures) -> Iterable[str]:
    yield _table(
        ("passed", "failed", "errors", "skipped"),
        [[str(figures[name]) for name in ("passed", "failed", "error", "skipped")]],
    )
    if figures["not_passed"]:
        yield "\n".join(f"- `{name}`" for name in figures["not_passed"])


def _model(figures: Figures) -> Iterable[str]:
    limits = figures["limits"]
    yield (
        "The limits, measured by the process that then measured the steps: "
        f"{limits['read'] / 1e9:,.0f} GB/s read by a sum, {limits['copy'] / 1e9:,.0f} GB/s read and written "
        f"by a copy, {limits['operations'] / 1e12:,.1f} TFLOP/s of a large {figures['dtype']} product. The "
        f"weights are {figures['weight_gb']:.3g} GB. The limit of a step is the longer of reading weights "
        "and KV at the larger bandwidth, and of all multiplications."
    )
    yield f"Kernels: {figures['kernels']}."
    yield (
        "Medians. *Step* is from the plan to the ids on the host, one step after the other; *forward* and "
        "*sampling* are the device's own times in it; *run* is from the first prompt to the last id of all."
    )
    if figures["decode"]:
        columns = {
            "rows": lambda f: str(f["rows"]),
            "context": lambda f: str(f["context"]),
            **_against_limit(),
            "tokens/s": lambda f: f"{f['tokens_per_second']:,.0f}",
            "run s": lambda f: f"{f['run_seconds']:.3f}",
            "watts": lambda f: f"{f['watts']:.0f}" if "watts" in f else "--",
            "joules a token": lambda f: f"{f['joules_per_output_token']:.3f}" if "watts" in f else "--",
        }
        yield _figures(columns, figures["decode"])
    with_chunks = [figures[name] for name in ("prefill", "mixed") if name in figures]
    if with_chunks:
        columns = {
            "decoding rows": lambda f: str(f["rows"]),
            "tokens of a prompt": lambda f: f"{f['tokens']:,}",
            **_against_limit(),
            "tokens/s": lambda f: f"{f['tokens_per_second']:,.0f}",
        }
        yield _figures(columns, with_chunks)
        yield (
            "Steps with chunks run without CUDA graphs. *Launching* is the host's time until all of a step "
            "is launched. Where that is slow, *the device's* time has gaps, but not in a step that it begins "
            "when all is launched: the difference is what graphs could save, less where steps overlap."
        )
        yield "\n".join(map(_launching, with_chunks))
    yield (
        "Power is NVML's energy counter over the decode steps alone, which is read before and after them. "
        "Where there is none, it is the mean of two readings; where NVML reports nothing, `--`."
    )


def _launching(figures: Figures) -> str:
    """Of one kind of steps with a chunk, which run without CUDA graphs."""
    step = f"- {figures['rows']} decoding rows and {figures['tokens']:,} tokens of a prompt"
    taken = f"launching takes {figures['launch_ms']:.3f} ms, the device {figures['device_ms']:.3f} ms"
    if "saving_ms" not in figures:
        return f"{step}: {taken}; what CUDA graphs could save is not known here."
    ahead = f"{figures['device_ahead_ms']:.3f} ms where it begins when all is launched"
    return f"{step}: {taken}, {ahead}: CUDA graphs could save at most {figures['saving_ms']:.3f} ms."


def _against_limit() -> dict[str, Callable[[Figures], str]]:
    return {
        "step ms": lambda f: f"{f['step_ms']:.3f}",
        "p99": lambda f: f"{f['step_p99_ms']:.3f}",
        "forward ms": lambda f: f"{f['forward_ms']:.3f}",
        "sampling ms": lambda f: f"{f['sampling_ms']:.3f}",
        "limit ms": lambda f: f"{f['limit_ms']:.3f}",
        "bound by": lambda f: f["bound"],
        "forward reaches": lambda f: f"{f['share_of_limit']:.1%}",
        "step reaches": lambda f: f"{f['share_of_limit_whole']:.1%}",
    }


def _sampling(figures: Figures) -> Iterable[str]:
    yield f"{figures['setup']}. Milliseconds, medians; prompts of 256 tokens."
    columns: dict[str, Callable[[Figures], str]] = {
        "controls": lambda f: f["controls"],
        "rows": lambda f: str(f["batch"]),
        "vocabulary": lambda f: f"{f['vocabulary']:,}",
        "T4": lambda f: f"{f['driver'] * 1e3:.3f}",
        "one read of the logits": lambda f: f"{f['read'] * 1e3:.3f}",
        "T4 / one read": lambda f: f"{f['driver'] / f['read']:.1f}",
        "by sorting": lambda f: f"{f['sort'] * 1e3:.3f}",
    }
    yield _figures(columns, figures["cases"])


def _overhead(figures: Figures) -> Iterable[str]:
    modes = figures["modes"]
    yield f"{figures['setup']}. Milliseconds, medians; *visible* is what delayed the next forward."
    rows = [
        (
            label,
            *(
                f"{summary[name]['median'] * 1e3:.3f}"
                for summary in modes.values()
                for name in (full, visible)
            ),
        )
        for label, full, visible in TASKS
    ]
    for label, name, form in (
        ("period / (T3 + T4)", "period_over_t3_t4", "{:.3f}"),
        ("non-scalable share", "non_scalable_share", "{:.1%}"),
        ("tokens/s", "tokens_per_second", "{:,.0f}"),
    ):
        rows.append(
            (label, *(cell for summary in modes.values() for cell in (form.format(summary[name]), "")))
        )
    yield _table(("task", *(name for mode in modes for name in (mode, "visible"))), rows)


def _vllm(figures: Figures) -> Iterable[str]:
    yield (
        f"Mean of a run of {VLLM_ROWS} rows of {FULL.prompt} + {FULL.outputs} tokens: "
        f"{figures['avg_latency']:.3f} s; *run* above is the same load, in steps that do not overlap."
    )


SECTIONS: dict[str, tuple[str, Callable[[Figures], Iterable[str]]]] = {
    "environment": ("Machine", _environment),
    "tests": ("Tests that need a GPU", _tests),
    "model": ("Decode steps and prefill of the model alone", _model),
    "sampling": ("Sampling (`albireo bench sampling`)", _sampling),
    "overhead": ("Overhead of the whole stack (`albireo bench overhead`)", _overhead),
    "vllm": ("vLLM", _vllm),
}


def _figures(columns: Mapping[str, Callable[[Figures], str]], rows: Iterable[Figures]) -> str:
    return _table(tuple(columns), [[cell(row) for cell in columns.values()] for row in rows])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
