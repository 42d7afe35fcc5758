"""``albireo trace``: records the steps of a running stack into a trace file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from albireo.cli.access_options import access_options, take_access
from albireo.cli.terminal import TARGET, Model, Target, fail
from albireo.tools.outputs import check_drawable, check_writable


@access_options
def trace(
    output: Annotated[Path, typer.Argument(help="File to write, Chrome trace format (JSON).")],
    target: Target = TARGET,
    model_name: Model = "",
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="How long to record.")] = 3.0,
    group: Annotated[
        str, typer.Option(help="Name of the only group to record; by default all, each in its own lanes.")
    ] = "",
    picture: Annotated[
        Path | None, typer.Option(help="Also draw a few steps into this PNG (needs albireo\\[bench]).")
    ] = None,
    picture_steps: Annotated[
        int, typer.Option(min=1, max=50, help="Steps in the picture (one group's).")
    ] = 4,
    **access_given: Any,
) -> None:
    """Records the steps of a running stack; open the file in ui.perfetto.dev or chrome://tracing."""
    check_writable("OUTPUT", output)
    check_drawable("--picture", picture)
    access = take_access(access_given)
    import grpc

    from albireo.client import describe
    from albireo.tools.trace.recorder import record_steps
    from albireo.tools.trace.trace import chrome_trace

    try:
        found = record_steps(target, model_name, seconds, access)
    except grpc.RpcError as error:
        fail(describe(error))
    if not found:
        fail(f"no step ran in {seconds:g} s: is there any load?")
    records = [record for record in found if group in ("", record.group)]
    if not records:
        names = ", ".join(sorted({record.group for record in found}))
        fail(f"--group {group}: no step ran there in {seconds:g} s; steps ran in {names}")
    output.write_text(json.dumps(chrome_trace(records)), encoding="utf-8")
    typer.echo(f"{len(records)} steps in {output}: open it in ui.perfetto.dev or chrome://tracing", err=True)
    if picture is not None:
        from albireo.tools.trace.picture import draw

        middle = records[len(records) // 2]
        drawn = chrome_trace(record for record in records if record.group == middle.group)
        draw(drawn, picture, first=middle.step, steps=picture_steps)
