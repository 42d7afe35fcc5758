"""``albireo top``: a running stack, live in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from albireo.cli.access_options import access_options, take_access
from albireo.cli.terminal import TARGET, Model, Target
from albireo.tools.outputs import check_writable


@access_options
def top(
    target: Target = TARGET,
    model_name: Model = "",
    interval: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds between two frames.")] = 1.0,
    once: Annotated[
        bool,
        typer.Option("--once", help="Print one frame after an interval; so it is without a terminal, too."),
    ] = False,
    picture: Annotated[
        Path | None, typer.Option(help="Also write the last frame into this SVG.", dir_okay=False)
    ] = None,
    **access_given: Any,
) -> None:
    """Shows groups, queue, KV blocks, tokens/s and T1 to T5 of a running stack, live; Ctrl-C ends it.

    A gateway that goes away is waited for. One frame alone ends with status 1 where something is unavailable.
    """
    if picture is not None and picture.suffix != ".svg":
        raise typer.BadParameter("an SVG: FILE.svg", param_hint="--picture")
    check_writable("--picture", picture)
    access = take_access(access_given)
    from rich.console import Console
    from rich.live import Live

    from albireo.runtime.process import stop_on_signals
    from albireo.tools.top.collector import Collector
    from albireo.tools.top.picture import svg
    from albireo.tools.top.screen import Screen

    console, stop = Console(), stop_on_signals()
    once = once or not console.is_terminal
    with Collector(target, model_name, access) as collector:
        view = collector.view()
        if once:
            stop.wait(interval)
            view = collector.view()  # rates are from two looks
            console.print(Screen(view))
        else:
            with Live(Screen(view), console=console, screen=True, auto_refresh=False) as live:
                while not stop.wait(interval):
                    view = collector.view()
                    live.update(Screen(view), refresh=True)
    if picture is not None:
        picture.write_text(svg(view), encoding="utf-8")
    if once and view.problem:
        raise typer.Exit(1)
