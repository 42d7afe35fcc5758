"""``albireo trace``: a few seconds of a running stack, to be looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from albireo.cli.terminal import TARGET, Model, Target, fail, needs_matplotlib

if TYPE_CHECKING:
    from albireo.v1 import control_pb2 as control


def trace(
    output: Annotated[Path, typer.Argument(help="File to write, Chrome trace format (JSON).")],
    target: Target = TARGET,
    model_name: Model = "",
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="How long to record.")] = 3.0,
    picture: Annotated[
        Path | None, typer.Option(help="Also draw a few steps into this PNG (needs albireo[bench]).")
    ] = None,
    picture_steps: Annotated[int, typer.Option(min=1, max=50, help="Steps in the picture.")] = 4,
) -> None:
    """Records the steps of a running stack; open the file in ui.perfetto.dev or chrome://tracing."""
    if picture is not None:
        needs_matplotlib()
    records = _recorded(target, model_name, seconds)
    if not records:
        fail(f"no step ran in {seconds:g} s: is there any load?")
    from albireo.tools.trace.trace import chrome_trace

    found = chrome_trace(records)
    try:
        output.write_text(json.dumps(found), encoding="utf-8")
    except OSError as error:
        fail(f"{output}: {error.strerror}")
    typer.echo(f"{len(records)} steps in {output}: open it in ui.perfetto.dev or chrome://tracing", err=True)
    if picture is not None:
        from albireo.tools.trace.picture import draw

        draw(found, picture, first=records[len(records) // 2].step, steps=picture_steps)


def _recorded(target: str, model_name: str, seconds: float) -> list[control.StepRecord]:
    """All steps from now on for so long."""
    import threading

    import grpc

    from albireo.client import Client, describe

    records: list[control.StepRecord] = []
    with Client(target) as client:
        call = client.watch_steps(model_name)
        timer = threading.Timer(seconds, call.cancel)
        timer.start()
        try:
            for record in call:
                records.append(record)  # noqa: PERF402  (kept when the call is cancelled)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.CANCELLED:
                fail(describe(error))
        finally:
            timer.cancel()
    return records
