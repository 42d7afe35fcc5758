"""``albireo doctor``: checks what Albireo needs, before a stack starts or while one runs, and advises."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from albireo.models import TINY

if TYPE_CHECKING:
    from albireo.tools.doctor.finding import Finding

STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "failure": "bold red"}
LABEL_COLUMNS = 9


def doctor(
    model: Annotated[
        Path,
        typer.Option(
            envvar=["ALBIREO_WORKER_MODEL", "ALBIREO_GATEWAY_MODEL", "ALBIREO_UP_MODEL"],
            help="Directory of the checkpoint.",
        ),
    ] = TINY,
    tp: Annotated[
        int, typer.Option(envvar="ALBIREO_UP_TP", min=1, max=64, help="Ranks on this machine.")
    ] = 1,
    device: Annotated[
        str | None,
        typer.Option(envvar=["ALBIREO_WORKER_DEVICE", "ALBIREO_UP_DEVICE"], help="cpu, cuda or sim."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(envvar=["ALBIREO_WORKER_DTYPE", "ALBIREO_UP_DTYPE"], help="float32 or bfloat16."),
    ] = None,
    kv_disk: Annotated[
        Path | None, typer.Option(envvar="ALBIREO_WORKER_KV_DISK", help="Directory of the KV tier on disk.")
    ] = None,
    redis_url: Annotated[
        str | None, typer.Option(envvar="ALBIREO_REDIS_URL", help="Redis that holds the logs.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Checks Redis, clock, ports, torch, the model, memory and the disk for KV, and says what to do.

    All other settings are read as the services read them, from their environment variables. The exit status
    is 1 where anything fails; warnings and notes leave it at 0.
    """
    from albireo.tools.doctor.examine import examine

    options = {"model": model, "device": device, "dtype": dtype, "kv_disk": kv_disk, "redis_url": redis_url}
    given = {name: value for name, value in options.items() if value is not None}
    console, findings = Console(highlight=False), list["Finding"]()
    for finding in examine(given, tp=tp):
        findings.append(finding)
        if not as_json:
            _print(console, finding)
    counts = Counter(finding.level for finding in findings)
    if as_json:
        report = {"failures": counts["failure"], "warnings": counts["warning"]}
        typer.echo(json.dumps({**report, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        console.print(f"\n{counts['failure']} failures, {counts['warning']} warnings")
    if counts["failure"]:
        raise typer.Exit(1)


def _print(console: Console, finding: Finding) -> None:
    label = finding.level.ljust(LABEL_COLUMNS)
    line = Text.assemble((label, STYLES[finding.level]), (finding.check, "bold"), f": {finding.found}")
    console.print(line, soft_wrap=True)
    if finding.advice:
        console.print(Text(" " * LABEL_COLUMNS + f"-> {finding.advice}"), soft_wrap=True)
