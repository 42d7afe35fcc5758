"""The record of a calibration: a device as a TOML file, which options take wherever they take a preset, and
its residuals as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from worker_svc.cost.device import Device, Variation


def write_device(device: Device, path: Path) -> None:
    """Numbers have six digits. Raises OSError."""
    path.write_text(to_toml(device.model_dump(exclude_none=True)), encoding="utf-8")


def to_toml(values: Mapping[str, Any], table: str = "") -> str:
    """Strings, numbers, tables and arrays of tables; a table within one of an array is inline."""
    plain, tables = [], []
    for key, value in values.items():
        name = f"{table}.{key}" if table else key
        if isinstance(value, Mapping):
            tables.append(f"\n[{name}]\n{to_toml(value, name)}")
        elif isinstance(value, list | tuple):
            tables += [f"\n[[{name}]]\n{''.join(_lines(element))}" for element in value]
        else:
            plain.append(f"{key} = {_scalar(value)}\n")
    return "".join(plain + tables)


def _lines(values: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {_inline(value)}\n" for key, value in values.items()]


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {_inline(inner)}' for key, inner in value.items())} }}"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, float):
        return repr(float(f"{value:.6g}"))
    return json.dumps(value)  # of strings and integers the same as TOML's


def residual_table(device: Device, title: str) -> Table:
    """How near the fitted model comes to the groups of like steps that it was fitted to."""
    record = device.calibration
    table = Table("fitted", "measurements", "median error", "worst", "noise", title=Text(title))
    for residual in record.residuals if record else ():
        table.add_row(
            residual.what,
            str(residual.measurements),
            f"{residual.median * 100:.1f} %",
            f"{residual.worst * 100:.1f} %",
            "--" if residual.noise is None else f"{residual.noise * 100:.1f} %",
        )
    if record:
        lines = [f"{record.model} on {record.machine}, {record.setup}", *map(_varies, device.variation)]
        table.caption = Text("\n".join(lines))
    return table


def _varies(variation: Variation) -> str:
    return (
        f"T3 of like steps, tp {variation.tp}: varies by {variation.step_spread:.1%} from step to step, and "
        f"by {variation.slow_spread:.1%} for about {variation.slow_seconds:.1f} s"
    )
