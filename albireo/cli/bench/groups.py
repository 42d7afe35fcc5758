"""``albireo bench groups``: streams of several worker groups of which one dies now and then."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from albireo.cli.terminal import fail
from albireo.models import TINY
from albireo.tools.outputs import JsonTo, check_writable, report


def groups(
    model: Annotated[Path, typer.Option(help="Directory of the checkpoint.")] = TINY,
    groups: Annotated[int, typer.Option(min=2, max=16, help="Worker groups.")] = 2,
    tp: Annotated[int, typer.Option(min=1, max=64, help="Ranks of each.")] = 2,
    streams: Annotated[int, typer.Option(min=1, max=1024, help="Streams at a time.")] = 64,
    outputs: Annotated[int, typer.Option(min=16, help="New tokens of each stream.")] = 256,
    seconds: Annotated[float, typer.Option(min=1, help="How long streams begin.")] = 300.0,
    every: Annotated[float, typer.Option(min=13, help="Seconds from one death to the next.")] = 20.0,
    json_to: JsonTo = "",
) -> None:
    """Kills one rank of a group now and then, and compares all streams with an undisturbed run.

    The exit status is 1 where a stream was lost or has other tokens.
    """
    check_writable("--json", json_to)
    from rich.console import Console

    from albireo.local.redis_server import RedisServerError
    from albireo.local.stack import StackError
    from albireo.local.supervisor import GaveUp
    from bench.groups.measure import measure
    from bench.groups.report import summarize, table

    options = {"model": model, "dtype": "float32", "groups": groups, "tp": tp}
    try:
        with Console(stderr=True).status("starts") as status:
            found = measure(
                options,
                streams=streams,
                outputs=outputs,
                seconds=seconds,
                every=every,
                on_progress=status.update,
            )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except (StackError, GaveUp, RedisServerError, RuntimeError) as error:
        fail(str(error))
    summary = summarize(found)
    title = f"{model.name}, fp32, {groups} groups of tp {tp}, {streams} streams, a death every {every:g} s"
    summary = {"setup": title, **summary}
    report(summary, json_to, lambda: Console().print(table(summary, title)))
    if summary["lost"] or summary["differing"]:
        fail(f"{summary['lost']} streams lost, {summary['differing']} with other tokens; {summary['errors']}")
