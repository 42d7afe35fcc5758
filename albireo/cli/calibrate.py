"""``albireo calibrate``: measures groups of a model on this machine, and writes a device file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from albireo.cli.terminal import fail
from albireo.models import TINY
from albireo.tools.outputs import check_writable

KV_DISK_BYTES = 8 << 30
"""What a rank takes in --kv-disk by default; a simulation can be given another size."""


class Device(StrEnum):
    """Where the model runs."""

    CPU = "cpu"
    CUDA = "cuda"


class Dtype(StrEnum):
    """Type of weights and activations."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def calibrate(
    output: Annotated[Path, typer.Option(help="Device file to write.", dir_okay=False)],
    model: Annotated[Path, typer.Option(help="Directory of the checkpoint.")] = TINY,
    device: Annotated[Device, typer.Option(help="Where the model runs.")] = Device.CPU,
    dtype: Annotated[Dtype, typer.Option(help="Type of weights and activations.")] = Dtype.BFLOAT16,
    tp: Annotated[str, typer.Option(help="TP degrees to measure, such as 1,2; 1 always is.")] = "1",
    max_seqs: Annotated[int, typer.Option(min=16, max=256, help="Slots: most rows that are measured.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, max=20, help="Times that all loads are served, in turn.")] = 2,
    kv_disk: Annotated[Path | None, typer.Option(help="Directory for a KV tier: measures its disk.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few loads: a first impression.")] = False,
) -> None:
    """Measures groups of a model on this machine, and writes a device file for simulate and plan.

    It serves chosen loads at each TP degree, and fits the terms of a step's cost to the steps.

    The file is a device like the presets: `albireo simulate`, `albireo plan` and `--cost-model` take it.
    Nothing else should run on the machine meanwhile.
    """
    from rich.console import Console

    from albireo.checkpoint.files import CheckpointError
    from albireo.local.redis_server import RedisServerError
    from albireo.local.stack import StackError
    from albireo.local.supervisor import GaveUp
    from albireo.planning.calibration.calibrate import calibrate as run
    from albireo.planning.calibration.description import disk_tier
    from albireo.planning.calibration.measure import Setting
    from albireo.planning.calibration.record import residual_table, write_device
    from albireo.runtime.process import stop_on_signals
    from bench.machine import machine

    degrees = _degrees(tp)
    check_writable("--output", output)
    stop = stop_on_signals()
    setting = Setting(model, device.value, dtype.value, max_seqs, rounds=1 if quick else rounds, stop=stop)
    try:
        with Console(stderr=True).status("starts") as status:
            tiers = () if kv_disk is None else (disk_tier(kv_disk, KV_DISK_BYTES),)
            found = run(setting, degrees, quick=quick, machine=machine(), report=status.update, tiers=tiers)
        write_device(found, output)
    except (CheckpointError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    except (StackError, GaveUp, RedisServerError, RuntimeError, OSError) as error:
        if stop.is_set():
            typer.echo("albireo: stopped; no device file is written", err=True)
            raise typer.Exit(130) from None
        fail(str(error))
    Console().print(residual_table(found, str(output)))


def _degrees(text: str) -> list[int]:
    try:
        degrees = [int(part) for part in text.split(",")]
    except ValueError:
        degrees = []
    if not degrees or not all(1 <= degree <= 64 for degree in degrees):
        raise typer.BadParameter(f"--tp {text}: TP degrees are numbers from 1 to 64, such as 1,2")
    return degrees
