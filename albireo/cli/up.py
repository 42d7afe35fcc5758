"""``albireo up`` and ``albireo demo``: the whole stack on this machine."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import typer
from redis.exceptions import RedisError
from rich.console import Console
from rich.text import Text

from albireo.contract.plan import BLOCK_SIZE
from albireo.local.redis_server import RedisServerError
from albireo.local.settings import StackSettings
from albireo.local.stack import Stack, StackError
from albireo.local.supervisor import GaveUp
from albireo.runtime.process import stop_on_signals
from albireo.runtime.settings import command
from albireo.telemetry.logs import setup_logging

DEMO_PROMPT = "Tell me a story about a fox."
GIB = 1 << 30


class Progress:
    """Shows a start in the terminal: a line for each unit that is up, and which units are not yet."""

    def __init__(self, console: Console, stack: Stack) -> None:
        self._console = console
        self._stack = stack
        self._began = time.monotonic()
        self._missing = list(stack.units)
        self._status = console.status("")

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def show(self, missing: Sequence[str]) -> None:
        """``missing``: the units that are not up yet."""
        for name in self._missing:
            if name not in missing:
                unit = f"group {name}" if name in self._stack.group_names else name
                self._console.print(f"{unit} is up after {self.seconds:.1f} s", markup=False, highlight=False)
        self._missing = list(missing)
        waits = ", ".join(map(self._label, missing)) or "the first epoch"
        # Text, here and below: a name may contain what rich would take for markup.
        self._status.update(Text(f"{self._stack.model_name}, {self.seconds:.0f} s: waits for {waits}"))

    def _label(self, name: str) -> str:
        if name not in self._stack.group_names:
            return name
        ranks = [child.memory / GIB for child in self._stack.units[name].children]
        return f"group {name} (loads; memory of its ranks: {', '.join(f'{gib:.1f}' for gib in ranks)} GiB)"


def _run(settings: StackSettings, *, demo: bool) -> int:
    setup_logging("albireo", "WARNING", settings.log_format)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    stop = stop_on_signals()
    try:
        with Stack(settings) as stack:
            with Progress(console, stack) as progress:
                if not stack.wait_ready(stop, progress.show):
                    typer.echo("albireo: stopped before it served", err=True)
                    return 130
            console.print(Text(_serving(stack, progress.seconds)))
            if demo:
                return _generate(stack.target)
            console.print(
                Text(
                    f'\n  albireo generate --target {stack.target} "{DEMO_PROMPT}"'
                    f"\n  albireo chat --target {stack.target}"
                    f"\n\nlogs in {settings.data_dir / 'logs'}; Ctrl-C stops everything"
                )
            )
            stack.watch(stop)
            console.print("stopping")
    except (StackError, GaveUp, RedisServerError, RedisError) as error:
        typer.echo(f"albireo: {error}", err=True)
        return 1
    return 0


def _serving(stack: Stack, seconds: float) -> str:
    lines = [f"{stack.model_name} serves on {stack.target} (up in {seconds:.1f} s)"]
    for group in sorted(stack.groups(), key=lambda group: group.name):
        tokens = group.num_blocks * BLOCK_SIZE
        how = f"tp {group.tp}, {group.device}, {group.dtype}, KV memory for {tokens:,} tokens"
        speed = f"{group.step_seconds * 1e3:.3g} ms a step" if group.step_seconds else "speed not measured"
        lines.append(f"  group {group.name}: {how}, {speed}")
    return "\n".join(lines)


def _generate(target: str) -> int:
    arguments = ["generate", "--target", target, "--temperature", "0", DEMO_PROMPT]
    return subprocess.run(
        [sys.executable, "-m", "albireo.cli", *arguments], check=False, timeout=120
    ).returncode


def _up(settings: StackSettings) -> None:
    """Starts Redis, the scheduler, worker groups and a gateway on this machine, and keeps them running."""
    sys.exit(_run(settings, demo=False))


def _demo(settings: StackSettings) -> None:
    """Starts everything, streams one answer, prints TTFT and tokens/s, and stops everything."""
    sys.exit(_run(settings, demo=True))


up = command(StackSettings, _up)
demo = command(StackSettings, _demo)
