"""Predicts three workloads by simulation, runs the same ones on a real stack, and compares.

    albireo calibrate --model /tmp/qwen --tp 1,2 --output device.toml
    python -m bench.prediction --model /tmp/qwen --device-file device.toml

The device file must have been calibrated on this machine with this model. The speed of a shared machine
changes by more than a prediction may be off; so a load of the calibration runs before and after each
workload, and the prediction that counts is that at the speed which it shows. The prediction at the speed of
the calibration is printed next to it. The exit status is 1 where an error is above its bar.

``--device sim --device-file paper-32b --model albireo/models/tiny`` compares the simulation with a stack
whose ranks wait instead of computing: then all that differs is what the CPUs do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from albireo.local.redis_server import RedisServerError
from albireo.local.stack import StackError
from albireo.local.supervisor import GaveUp
from albireo.planning.workload import Workload
from albireo.tools.outputs import check_writable
from bench.machine import machine
from bench.prediction.cases import make_cases
from bench.prediction.compare import Comparison, as_data, compare, table
from bench.prediction.measure import Group, group_of, measure_in_turn, predict
from bench.prediction.speed import AtSpeed
from bench.stack import running_stack
from worker_svc.cost.interface import CostModel
from worker_svc.cost.load import load_cost_model
from worker_svc.model.config import ModelConfig

DRAWS = 8
"""Simulations of each workload, each with other draws of the device's speed."""


def run_degree(
    options: Mapping[str, Any], cost: CostModel, *, slots: int, seconds: float, rounds: int, console: Console
) -> tuple[dict[str, list[Comparison]], dict[str, Any]]:
    """One TP degree: comparisons by case, and everything as plain data. ``options``: of StackSettings."""
    environment = {"ALBIREO_WORKER_MAX_SEQS": str(slots), "ALBIREO_SCHEDULER_MAX_NUM_SEQS": str(slots)}
    with (
        console.status(f"starting a stack with TP {cost.tp}") as status,
        running_stack({**options, "tp": cost.tp}, environment) as stack,
    ):
        group = group_of(stack.target)
        status.update(f"TP {cost.tp}: predicting")

        def requests_per_second(workload: Workload) -> float:
            return float(predict(workload, AtSpeed(cost), group)[0]["requests_per_second"])

        cases = make_cases(requests_per_second, seconds)
        calibrated = {name: _predict(workload, cost, 1.0, group) for name, workload in cases.items()}
        runs = measure_in_turn(
            stack.target,
            cases,
            group,
            cost,
            rounds=rounds,
            on_begin=lambda what: status.update(f"TP {cost.tp}, {what}"),
        )
    compared, data = {}, {}
    for name, workload in cases.items():
        predicted = [found for run in runs[name] for found in _predict(workload, cost, run.speed, group)]
        compared[name] = compare(calibrated[name], predicted, runs[name])
        data[name] = {
            "workload": workload.name,
            "comparison": as_data(compared[name]),
            "predicted_at_calibrated_speed": calibrated[name],
            "predicted": predicted,
            "measured": [asdict(run) for run in runs[name]],
        }
    return compared, {"tp": cost.tp, "group": asdict(group), "cases": data}


def _predict(workload: Workload, cost: CostModel, speed: float, group: Group) -> list[dict[str, Any]]:
    return predict(workload, AtSpeed(cost, speed, cost.variation), group, draws=DRAWS)


def main(
    model: Annotated[Path, typer.Option(help="Directory of the checkpoint.")],
    device_file: Annotated[str, typer.Option(help="TOML that albireo calibrate wrote on this machine.")],
    device: Annotated[str, typer.Option(help="cpu, cuda, or sim: waits as the file says.")] = "cpu",
    tp: Annotated[list[int], typer.Option(min=1, help="TP degree; may be given several times.")] = [1, 2],  # noqa: B006
    seconds: Annotated[float, typer.Option(min=1, help="About so long a run of each workload.")] = 90.0,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each workload, in turn.")] = 2,
    kv_memory: Annotated[str, typer.Option(help="Of each rank; the simulation has as many blocks.")] = "1GiB",
    slots: Annotated[int, typer.Option(min=48, help="Of the group.")] = 64,
    json_to: Annotated[str, typer.Option("--json", help="Also write JSON to this file; - prints it.")] = "",
) -> None:
    """Prints simulated and measured figures, their errors and the bars."""
    console = Console(stderr=True)
    check_writable("--json", json_to)
    load_average = os.getloadavg()[0]
    found: dict[str, Any] = {
        "machine": machine(),
        "load_average": load_average,
        "device": device,
        "device_file": device_file,
        "degrees": [],
    }
    options = {"model": model, "device": device, "cost_model": device_file}
    options |= {"dtype": "bfloat16", "kv_memory": kv_memory}
    missed = 0
    try:
        config = ModelConfig.from_dir(model)
        costs = [load_cost_model(device_file, config, degree) for degree in tp]
        for cost in costs:
            compared, data = run_degree(
                options, cost, slots=slots, seconds=seconds, rounds=rounds, console=console
            )
            found["degrees"].append(data)
            missed += sum(one.within is False for figures in compared.values() for one in figures)
            caption = f"{machine()}; load average before the run {load_average:.1f}"
            _print(
                table(compared, f"{model.name} on {device}, TP {cost.tp}, {device_file}", caption), json_to
            )
            _write(found, json_to)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except (StackError, GaveUp, RedisServerError, RuntimeError) as error:
        console.print(f"bench.prediction: {error}", markup=False)
        raise typer.Exit(1) from None
    _print(f"{missed} of the figures with a bar are above it", json_to)
    if json_to == "-":
        print(json.dumps(found, indent=2))
    if missed:
        raise typer.Exit(1)


def _print(what: Table | str, json_to: str) -> None:
    if json_to != "-":
        Console().print(what)


def _write(found: dict[str, Any], json_to: str) -> None:
    """After each TP degree, so that an end of the run loses one only."""
    if json_to not in ("", "-"):
        Path(json_to).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
