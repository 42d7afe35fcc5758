"""A group of commands whose modules are imported when they run: the list of them costs no imports."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from albireo.runtime.imports import without_collection


def group(commands: Mapping[str, tuple[str, str]]) -> type[TyperGroup]:
    """Class for ``typer.Typer(cls=...)``.

    ``commands``: by name, ``module:attribute`` of a function with typer's annotations or of a ``Typer``, and
    the first line of its help, which the list shows.
    """

    class Lazy(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return list(commands)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            """What the list shows of a command."""
            return TyperCommand(cmd_name, help=commands[cmd_name][1]) if cmd_name in commands else None

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            name, command, rest = super().resolve_command(ctx, args)
            return name, load_command(commands[name][0]) if name and command else command, rest

    return Lazy


def load_command(target: str) -> Any:
    """The command of ``module:attribute``, with its options. Imports the module."""
    module, _, attribute = target.partition(":")
    with without_collection():
        found = getattr(import_module(module), attribute)
    if isinstance(found, typer.Typer):
        return get_command(found)
    own = typer.Typer(add_completion=False)
    own.command()(found)
    return get_command(own)
