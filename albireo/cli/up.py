"""``albireo up`` and ``albireo demo``: the whole stack on this machine."""

from __future__ import annotations

import subprocess
import sys
import time

from rich.console import Console

from albireo.process import stop_on_signals
from albireo.redis_server import RedisServerError
from albireo.settings import command
from albireo.stack import Stack, StackError, StackSettings
from albireo.supervisor import GaveUp
from albireo.telemetry.logs import setup_logging

DEMO_PROMPT = "Tell me a story about a fox."


def _run(settings: StackSettings, *, demo: bool) -> int:
    setup_logging("albireo", "WARNING", settings.log_format)
    console = Console(stderr=True)
    stop = stop_on_signals()
    began = time.monotonic()
    try:
        with Stack(settings) as stack:
            with console.status(f"starting {stack.model_name} on {settings.tp} rank(s)"):
                if not stack.wait_ready(stop):
                    return 130
            console.print(
                f"[bold]{stack.model_name}[/] serves on {stack.target} "
                f"(tp {settings.tp}, {settings.device}, {settings.dtype}; "
                f"up in {time.monotonic() - began:.1f} s)"
            )
            if demo:
                return _generate(stack.target)
            console.print(
                f'\n  albireo generate --target {stack.target} "{DEMO_PROMPT}"'
                f"\n  albireo chat --target {stack.target}"
                f"\n\nlogs in {settings.data_dir / 'logs'}; Ctrl-C stops everything"
            )
            stack.watch(stop)
            console.print("stopping")
    except (StackError, GaveUp, RedisServerError) as error:
        console.print(f"[red]{error}", highlight=False)
        return 1
    return 0


def _generate(target: str) -> int:
    arguments = ["generate", "--target", target, "--temperature", "0", DEMO_PROMPT]
    return subprocess.run(
        [sys.executable, "-m", "albireo.cli", *arguments], check=False, timeout=120
    ).returncode


def _up(settings: StackSettings) -> None:
    """Starts Redis, the scheduler, a worker group and a gateway on this machine, and keeps them running."""
    sys.exit(_run(settings, demo=False))


def _demo(settings: StackSettings) -> None:
    """Starts everything, streams one answer, prints TTFT and tokens/s, and stops everything."""
    sys.exit(_run(settings, demo=True))


up = command(StackSettings, _up)
demo = command(StackSettings, _demo)
